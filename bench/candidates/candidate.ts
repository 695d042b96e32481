/** Something that offers a disk to a front-end over a vhost-user socket, for the benchmark to load. */
import type { Cleanup } from '../../test/support/cleanup.ts';

export interface CandidateContext {
  readonly cleanup: Cleanup;
  /** A directory of this candidate's own, which exists and is removed at the end. */
  readonly directory: string;
  /** An image of this candidate's own: `imageBytes` long, no holes, in the page cache. */
  readonly imagePath: string;
  readonly imageBytes: number;
  readonly queues: number;
  readonly transport: Transport;
}

/** What goes over the wire between the two sides of a candidate that has two. */
export type Transport = 'tls' | 'plain';

export interface RunningCandidate {
  /** Where the disk is offered. */
  readonly socketPath: string;
  /** What was started, as a person would type it. */
  readonly commandLines: readonly string[];
  /** The processes of both sides: their CPU time is counted. */
  readonly pids: readonly number[];
  /** Ends all its processes. */
  stop(): Promise<void>;
}

export interface Candidate {
  /** Column of the report that it belongs to; where there are several of one kind, the best one counts. */
  readonly kind: CandidateKind;
  /** What tells it from the others: "local", "peer -t 16". */
  readonly name: string;
  start(context: CandidateContext): Promise<RunningCandidate>;
}

/** `null` has nothing behind it: what the front-end can do at least. */
export const candidateKinds = ['netbus', 'local', 'peer', 'null'] as const;
export type CandidateKind = (typeof candidateKinds)[number];
