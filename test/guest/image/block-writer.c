/*
 * block-writer DEVICE FIRST BLOCKS SEED WRITERS PAUSE_US: writes and flushes blocks of a disk, and says all of it to the host on a debug port of QEMU
 * (isa-debugcon): what is about to be written and what was acknowledged, so that the host knows what has to be on the disk, whatever
 * becomes of the guest. Ends at SIGTERM, with a last flush.
 *
 * A line each: "w BLOCK SEQUENCE" before a write, then "a BLOCK" (acknowledged) or "e BLOCK" (an error); "f WRITER" before a flush, then
 * "g WRITER" or "h WRITER". The content of a block is that of bench/faults/block-ledger.ts.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>
#include <unistd.h>

#define PORT 0x4e9
#define BLOCK_BYTES 4096
#define SECTOR_BYTES 512
#define MAGIC 0x6e627573u
#define WRITERS_MAX 16
/* Of a hundred requests; the rest are writes. */
#define FLUSH_PERCENT 4

static int fd;
static unsigned first, blocks, seed, writers, pause_us;
static uint32_t sequence;
static volatile sig_atomic_t ending;
/* Lines, and the numbers in them, are in one order. */
static pthread_mutex_t saying = PTHREAD_MUTEX_INITIALIZER;

static void say(const char *line, int length)
{
	outsb(PORT, line, length);
}

static void tell(char what, unsigned number)
{
	char line[32];
	int length = snprintf(line, sizeof line, "%c %u\n", what, number);
	pthread_mutex_lock(&saying);
	say(line, length);
	pthread_mutex_unlock(&saying);
}

static uint32_t begin_write(unsigned block)
{
	char line[48];
	pthread_mutex_lock(&saying);
	uint32_t number = ++sequence;
	say(line, snprintf(line, sizeof line, "w %u %u\n", block, number));
	pthread_mutex_unlock(&saying);
	return number;
}

static uint32_t mix(uint32_t word, uint32_t with)
{
	uint32_t hash = (word ^ with) * 0x9e3779b1u + with;
	hash = (hash ^ (hash >> 16)) * 0x85ebca6bu;
	hash = (hash ^ (hash >> 13)) * 0xc2b2ae35u;
	return hash ^ (hash >> 16);
}

static void fill(uint32_t *words, unsigned block, uint32_t number)
{
	for (unsigned i = 0; i < BLOCK_BYTES / 4; i++)
		words[i] = mix(block * (BLOCK_BYTES / 4) + i, seed ^ number);
	for (unsigned i = 0; i < BLOCK_BYTES / 4; i += SECTOR_BYTES / 4) {
		words[i] = MAGIC;
		words[i + 1] = block;
		words[i + 2] = number;
	}
}

static void flush(unsigned writer)
{
	tell('f', writer);
	tell(fdatasync(fd) == 0 ? 'g' : 'h', writer);
}

static void *work(void *argument)
{
	unsigned writer = (unsigned)(uintptr_t)argument;
	unsigned state = seed + writer;
	void *buffer;
	if (posix_memalign(&buffer, BLOCK_BYTES, BLOCK_BYTES) != 0)
		abort();
	while (!ending) {
		if (rand_r(&state) % 100 < FLUSH_PERCENT) {
			flush(writer);
		} else {
			/* Blocks are shared out, so that two writes never meet in one. */
			unsigned block = writer + writers * (rand_r(&state) % (blocks / writers));
			fill(buffer, block, begin_write(block));
			off_t position = (off_t)(first + block) * BLOCK_BYTES;
			tell(pwrite(fd, buffer, BLOCK_BYTES, position) == BLOCK_BYTES ? 'a' : 'e', block);
		}
		usleep(pause_us);
	}
	flush(writer);
	return NULL;
}

static void end(int signal)
{
	(void)signal;
	ending = 1;
}

int main(int argc, char **argv)
{
	if (argc != 7) {
		fprintf(stderr, "usage: block-writer DEVICE FIRST BLOCKS SEED WRITERS PAUSE_US\n");
		return 2;
	}
	first = strtoul(argv[2], NULL, 10);
	blocks = strtoul(argv[3], NULL, 10);
	seed = strtoul(argv[4], NULL, 10);
	writers = strtoul(argv[5], NULL, 10);
	pause_us = strtoul(argv[6], NULL, 10);
	fd = open(argv[1], O_RDWR | O_DIRECT);
	if (fd < 0 || writers < 1 || writers > WRITERS_MAX || blocks < writers || ioperm(PORT, 1, 1) != 0) {
		perror("block-writer");
		return 1;
	}
	signal(SIGTERM, end);
	pthread_t threads[WRITERS_MAX];
	for (unsigned i = 0; i < writers; i++)
		if (pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)i) != 0)
			abort();
	for (unsigned i = 0; i < writers; i++)
		pthread_join(threads[i], NULL);
	return 0;
}
