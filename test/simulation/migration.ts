/**
 * A live migration of a VM, as `netbus migrate` or a management layer does it with the real calls of the daemons: what fails is undone, and the VM goes on
 * where it was, if it can.
 */
import type { SimDaemon } from './daemon.ts';
import type { SimVm } from './guest.ts';
import type { SimHost } from './host.ts';
import type { Left } from './knowledge.ts';
import { ask } from './operator.ts';
import { GuestRing } from './ring.ts';
import type { SimVmm } from './vmm.ts';
import type { World } from './world.ts';

/** Where faults strike: before each of these steps, and after it. */
export type Step = 'prepare' | 'connect' | 'copy' | 'stop' | 'switch' | 'arrive' | 'settle';

export interface MigrationOptions {
  readonly world: World;
  readonly vm: SimVm;
  readonly to: SimHost;
  /** Told before each step. */
  readonly onStep: (step: Step, migration: Migration) => void;
}

const UNDO_PAUSE_MS = 500;
/** A call that nobody waits for any more has ended by then. */
const PREPARE_MS_MAX = 35_000;
const UNANSWERED = new Set(['unreachable', 'timeout', 'ended', 'killed']);
/** After that the source's process is gone, too. */
const SOURCE_KEPT_MS = [5, 100, 3_000, 20_000];

export class Migration {
  readonly vm: SimVm;
  readonly from: SimHost;
  readonly to: SimHost;
  readonly #world: World;
  readonly #onStep: MigrationOptions['onStep'];
  readonly #source: SimVmm;
  /** By `netbus migrate` at the source; otherwise whoever manages the VMs prepares the destination alone. */
  readonly #byDesk: boolean;
  #destination: SimVmm | undefined;
  /** It was asked to prepare, and may still be at it. */
  #mayComeLate = false;

  constructor({ world, vm, to, onStep }: MigrationOptions) {
    this.vm = vm;
    this.from = vm.host;
    this.to = to;
    this.#world = world;
    this.#onStep = onStep;
    this.#source = vm.vmm!;
    this.#byDesk = world.chance(2);
  }

  /** The processes of the VM at this moment. */
  get source(): SimVmm {
    return this.#source;
  }

  get destination(): SimVmm | undefined {
    return this.#destination;
  }

  /** Resolves when nobody waits for anything of it any more. */
  async run(): Promise<void> {
    const world = this.#world;
    this.#count('migrations begun');
    this.vm.isMoving = true;
    this.vm.movesTo = this.to;
    const hasGone = await this.#move();
    if (!hasGone) await this.#undo();
    this.vm.isMoving = false;
    this.vm.movesTo = undefined;
    if (hasGone) await this.#end();
    world.trace(`migration of ${this.vm.name} to ${this.to.name} is over`);
  }

  async #move(): Promise<boolean> {
    const world = this.#world;
    const { daemon } = this.from;
    await this.#step('prepare', 5);
    if (!(await this.#prepare())) {
      this.#count('migrations refused');
      return false;
    }
    await this.#step('connect', 20);
    if (this.#isSourceGone) return false;
    this.#destination = this.vm.makeVmm(this.to, new GuestRing(() => {}));
    this.#source.copyMemory(true);
    await this.#step('copy', world.pick([5, 50, 500]));
    if (world.chance(12)) this.#destination.quit();
    if (this.#isSourceGone || this.#destination.isOver) return false;
    this.vm.pause();
    const stopping = this.#source.stopRings();
    await this.#step('stop', 0);
    const stopped = await stopping;
    if (this.#isSourceGone) return false;
    if (stopped === 'lost' || !(await this.#mayGo())) return this.#goOn('stops that met a lost connection');
    await this.#step('switch', 5);
    if (this.#isSourceGone) return false;
    if (world.chance(8)) return this.#goOn('migrations cancelled after the stop');
    if (this.#destination.isOver) return this.#goOn('destinations that died before the start');
    return this.#switchOver(this.#destination, daemon);
  }

  /** From here on the guest's memory is at both hosts, until it runs at one of them. */
  async #switchOver(destination: SimVmm, daemon: SimDaemon | undefined): Promise<boolean> {
    const world = this.#world;
    const { ring, unseen } = this.vm.copyMemory();
    const left = this.#left;
    const lastMove = { from: this.from, daemon, wasTold: this.#wasTold };
    destination.ring = ring;
    destination.base = this.#source.base;
    destination.startRings();
    // Mostly at once; now and then it is started by somebody, later.
    await this.#step('arrive', world.pick([0, 0, 3, 50]));
    if (world.chance(15)) destination.quit();
    if (destination.isOver) {
      // The lease may be with a host that cannot give it back, or something of the guest was done there that it does not know of here.
      this.vm.mayBeStuck = true;
      this.vm.lastMove = lastMove;
      if (this.#isSourceGone) return false;
      return this.#goOn('destinations that died after the start');
    }
    this.vm.lastMove = lastMove;
    this.vm.checker.guestMoved({ left, hasLog: this.to === this.vm.deviceHost || this.to.hasLogMemory });
    this.vm.runIn(destination, unseen);
    this.#count('moves');
    return true;
  }

  /** The rings start again where they were. */
  #goOn(why: string): false {
    this.#count(why);
    this.#source.startRings();
    this.vm.resume();
    return false;
  }

  async #prepare(): Promise<boolean> {
    const { name } = this.vm;
    const prepared = this.#byDesk
      ? await ask<unknown>(this.#world, this.from, `migrate ${name} to ${this.to.name}`, ({ migrations }) =>
          migrations.begin(name, { to: this.to.name, check: false }),
        )
      : await ask<unknown>(this.#world, this.to, `prepare ${name}`, ({ preparation }) =>
          preparation.prepare(name, this.from.name),
        );
    this.#mayComeLate = !prepared.ok && UNANSWERED.has(prepared.code);
    // The device's host may store that the VM is expected only after it was told that it is not.
    if (this.#mayComeLate) this.#world.count('standbys that stay');
    return prepared.ok;
  }

  /** The daemon of the source says whether all of the device's rings were stopped. */
  async #mayGo(): Promise<boolean> {
    if (!this.#byDesk) return true;
    const answer = await ask(this.#world, this.from, `switch ${this.vm.name} over`, async ({ migrations }) =>
      migrations.switchover(this.vm.name),
    );
    return answer.ok && answer.value.stopped;
  }

  /** The VM stays, or is off: nothing of it is to come to the destination any more. */
  async #undo(): Promise<void> {
    this.#source.copyMemory(false);
    const { name } = this.vm;
    this.#destination?.quit();
    if (this.#byDesk) {
      const end = await ask(this.#world, this.from, `undo the migration of ${name}`, ({ migrations }) =>
        migrations.end(name, { to: this.to.name, undo: true }),
      );
      if (end.ok && !this.#mayComeLate) return;
      if (!end.ok && UNANSWERED.has(end.code)) this.#world.count('standbys that stay');
    }
    if (this.#mayComeLate) await this.#world.pause(PREPARE_MS_MAX);
    for (;;) {
      const undone = await ask(this.#world, this.to, `unprepare ${name}`, ({ preparation }) => preparation.unprepare(name));
      if (undone.ok) return;
      if (UNANSWERED.has(undone.code)) this.#world.count('standbys that stay');
      // A guest that is nobody's, of a host that was fenced: it is in the way until somebody ends it.
      const other = this.to.vmms.get(this.vm.key);
      if (other !== undefined && other !== this.#destination) return;
      // Its daemon was killed, and its VMM went before it was back: the lease is with a host that cannot give it back.
      if (undone.message.includes('may connect again') && this.vm.recordAtDevice?.host === this.to.name) return;
      await this.#world.pause(UNDO_PAUSE_MS);
    }
  }

  async #end(): Promise<void> {
    this.#onStep('settle', this);
    await this.#world.pause(this.#world.pick(SOURCE_KEPT_MS));
    this.#source.quit();
    const { name } = this.vm;
    if (!this.#byDesk) return;
    await ask(this.#world, this.from, `end the migration of ${name}`, ({ migrations }) =>
      migrations.end(name, { to: this.to.name, undo: false }),
    );
  }

  /** It is off, or was started anew. */
  get #isSourceGone(): boolean {
    return this.#source.isOver;
  }

  /** The device's host has what the guest left, or need not have it. */
  get #wasTold(): boolean {
    const { recordAtDevice: record } = this.vm;
    return record !== undefined && record.lease.holder === null && record.host === this.from.name;
  }

  /** As the device's host knows it, or as it must be. */
  get #left(): Left {
    const { from, vm } = this;
    if (this.#wasTold) {
      const { unflushed } = vm.recordAtDevice!.handOver ?? {};
      if (unflushed === undefined) this.#world.count('guests that left nothing unflushed');
      if (unflushed === undefined) return 'nothing';
      return unflushed.log !== undefined && from.isOn ? 'kept' : 'unknown';
    }
    return from !== vm.deviceHost && from.hasLogMemory && from.isOn ? 'kept' : 'unknown';
  }

  #step(step: Step, typicalMs: number): Promise<void> {
    this.#onStep(step, this);
    return this.#world.pause(typicalMs === 0 ? 0 : this.#world.latency(typicalMs));
  }

  #count(what: string): void {
    this.#world.count(what);
    this.#world.trace(`migration of ${this.vm.name} from ${this.from.name} to ${this.to.name}: ${what}`);
  }
}
