/** The members that a config file names, for people with certificates of their own. They change with a restart. */
import { NetbusError } from '../device/errors.ts';
import type { Address } from '../lib/address.ts';
import type { Directory, Member } from './directory.ts';

export class StaticDirectory implements Directory {
  readonly signed = false;
  readonly trusted = 'none';
  readonly #host: string;
  readonly #members: ReadonlyMap<string, Member>;

  /** `host` is this one, for messages. */
  constructor(host: string, hosts: ReadonlyMap<string, Address>) {
    this.#host = host;
    this.#members = new Map([...hosts].map(([name, address]) => [name, { host: name, address, since: undefined }]));
  }

  members(): ReadonlyMap<string, Member> {
    return this.#members;
  }

  list(): undefined {}

  async accept(): Promise<never> {
    const advice = 'remove `hosts` there to use the signed member list';
    throw new NetbusError(
      'usage',
      `the members of host ${this.#host} are those of its config, and no list changes them: ${advice}`,
    );
  }

  onChange(): () => void {
    return () => {};
  }

  admits(host: string): string | undefined {
    return this.#members.has(host)
      ? undefined
      : `host ${host} is not a member: add it to the hosts in the config of ${this.#host}`;
  }
}
