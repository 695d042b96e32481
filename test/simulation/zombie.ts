/** A guest that runs on where nobody wants it any more: its host was taken for dead and fenced, and another guest was started in its place. */
import { DiskKind, DiskStatus } from '../../src/device/disk.ts';
import { newRequest, type SimVm } from './guest.ts';
import type { GuestRing } from './ring.ts';
import type { SimVmm } from './vmm.ts';
import type { World } from './world.ts';

const REQUESTS_MAX = 30;
/** Between two of them, typically. */
const THINK_MS = 300;
const WAITING_MAX = 16;

export class Zombie {
  readonly vm: SimVm;
  readonly vmm: SimVmm;
  readonly #world: World;
  readonly #guest: number;
  readonly #ring: GuestRing;
  #left = REQUESTS_MAX;
  /** Of the checker: what is asked for later than that must fail. */
  #fencedAt = Number.POSITIVE_INFINITY;

  /** It is that guest from now on, and the VM is off. */
  constructor(world: World, vm: SimVm) {
    this.vm = vm;
    this.#world = world;
    this.#guest = vm.checker.guest;
    this.vmm = vm.abandon();
    this.#ring = this.vmm.ring;
    this.#ring.onAnswer = ({ request, status }) => {
      const isLate = request.begunAt > this.#fencedAt;
      if (status !== DiskStatus.ok) world.count('errors of guests that were fenced');
      else if (isLate) world.violated('one writer', `${vm.key}: a request succeeded that was made after its host was fenced`);
    };
    this.#think();
  }

  /**
   * Requests without an answer, while it runs and its ring is served. Its host may have taken the socket away, as the guest is elsewhere; and the ring of
   * a guest that was only just coming is not served: nobody knows what was left of it.
   */
  get waiting(): number {
    return this.vmm.frontend?.isServed ? this.#ring.waiting : 0;
  }

  fenced(): void {
    this.#fencedAt = this.vm.checker.begun();
    this.vm.checker.fenced();
  }

  #think(): void {
    const world = this.#world;
    if (this.#left === 0) return;
    world.at(world.latency(THINK_MS), () => {
      if (this.vmm.isOver) return;
      this.#left--;
      if (this.#ring.waiting < WAITING_MAX) {
        const kind = world.chance(3) ? DiskKind.read : DiskKind.write;
        const first = this.vm.anyBlocks(1);
        this.#ring.add(newRequest(this.vm.checker, { kind, first, blocks: 1, isDurable: false }, this.#guest));
        this.vmm.frontend?.kicked();
      }
      this.#think();
    });
  }
}
