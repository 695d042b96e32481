/*
 * Tells the host once a millisecond that the guest is running: a byte on QEMU's debug port (isa-debugcon), which needs no driver, is in no device's
 * state, and reaches the host at once. A guest's own clock stands still while its VM is paused, so only the host can measure the gaps.
 */
#include <sched.h>
#include <stdio.h>
#include <sys/io.h>
#include <time.h>

#define PORT 0xe9
#define PERIOD_NS 1000000L
#define SECOND_NS 1000000000L

static struct timespec later(struct timespec time)
{
	time.tv_nsec += PERIOD_NS;
	if (time.tv_nsec >= SECOND_NS) {
		time.tv_nsec -= SECOND_NS;
		time.tv_sec++;
	}
	return time;
}

static int before(struct timespec one, struct timespec other)
{
	return one.tv_sec < other.tv_sec || (one.tv_sec == other.tv_sec && one.tv_nsec < other.tv_nsec);
}

int main(void)
{
	/* Before all that works in the guest: a gap is the machine's, not the scheduler's. */
	struct sched_param priority = { .sched_priority = 50 };
	if (sched_setscheduler(0, SCHED_FIFO, &priority) != 0 || ioperm(PORT, 1, 1) != 0) {
		perror("ticker");
		return 1;
	}
	struct timespec next, now;
	clock_gettime(CLOCK_MONOTONIC, &next);
	for (;;) {
		outb('.', PORT);
		next = later(next);
		clock_gettime(CLOCK_MONOTONIC, &now);
		/* What was missed is not made up for. */
		if (before(next, now))
			next = now;
		else
			clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
	}
}
