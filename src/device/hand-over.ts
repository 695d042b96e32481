/**
 * What a guest's host hands over when the guest's queues have stopped, so that another host can go on with them: the paper's section 3.1, whose pending
 * I/O is either finished or in here. It lies with the device's host until the new host has made it good. Plain JSON.
 */
import { z } from 'zod';
import { DISK_QUEUES_MAX } from './profile.ts';

/** Most requests of one queue that can be without an answer: QUEUE_SIZE_MAX of a virtqueue. */
const HEADS_MAX = 1024;

/** JSON text of a hand-over: with what goes around it, it fits the 64 KiB of a STATE and a STATED (docs/protocol.md, 2.1). */
export const HAND_OVER_BYTES_MAX = 60 * 1024;

/** Indexes of a virtqueue count modulo 2^16. */
const ringIndexSchema = z.number().int().min(0).max(0xffff);
const headsSchema = z
  .array(
    z
      .number()
      .int()
      .min(0)
      .max(HEADS_MAX - 1),
  )
  .max(HEADS_MAX);

/** Where one queue stands. Its requests stay in guest memory, so their heads are enough. */
export const queueHandOverSchema = z.strictObject({
  /** Index of the next entry to take: what GET_VRING_BASE answers. */
  fetched: ringIndexSchema,
  /** Of the used ring, without `lastBatch`. */
  usedIndex: ringIndexSchema,
  /** Heads that were taken and have no answer, in the order in which they were taken. */
  heads: headsSchema,
  /**
   * Newest first: heads that were put into the used ring, and of which nobody knows whether the driver was shown them (whoever did it was killed). They
   * may be in `heads`, too, and older ones may follow. The guest's own used index says how many of them are done.
   */
  lastBatch: headsSchema,
});
export type QueueHandOver = Readonly<z.infer<typeof queueHandOverSchema>>;

/** A write log that is kept at the host that the guest comes from. */
const keptLogSchema = z.strictObject({ host: z.string().max(64), bytes: z.number().int().min(0) });

export const FAILURE_LENGTH_MAX = 2000;

export const handOverSchema = z.strictObject({
  queues: z.array(queueHandOverSchema).max(DISK_QUEUES_MAX),
  /** Left out where a flush covers all that was acknowledged. What it went to; `log`: who has it, where anybody has. */
  unflushed: z
    .strictObject({ bootId: z.string().max(64), instance: z.string().max(64), log: keptLogSchema.optional() })
    .optional(),
  /** The driver's last choice; left out where it made none. */
  writeCache: z.boolean().optional(),
  /** Why every request of this guest is answered with an error, and will be. */
  failure: z.string().max(FAILURE_LENGTH_MAX).optional(),
});
export type HandOver = Readonly<z.infer<typeof handOverSchema>>;
