/**
 * The numbers of the vhost-user protocol (QEMU, docs/interop/vhost-user.rst). Both roles use them: the front-end is the VMM, the
 * back-end is whoever serves the device's rings.
 */

/** Front-end to back-end messages. */
export const Request = {
  getFeatures: 1,
  setFeatures: 2,
  setOwner: 3,
  resetOwner: 4,
  setMemTable: 5,
  setLogBase: 6,
  setLogFd: 7,
  setVringNum: 8,
  setVringAddr: 9,
  setVringBase: 10,
  getVringBase: 11,
  setVringKick: 12,
  setVringCall: 13,
  setVringErr: 14,
  getProtocolFeatures: 15,
  setProtocolFeatures: 16,
  getQueueNum: 17,
  setVringEnable: 18,
  sendRarp: 19,
  netSetMtu: 20,
  setBackendReqFd: 21,
  iotlbMsg: 22,
  setVringEndian: 23,
  getConfig: 24,
  setConfig: 25,
  createCryptoSession: 26,
  closeCryptoSession: 27,
  postcopyAdvise: 28,
  postcopyListen: 29,
  postcopyEnd: 30,
  getInflightFd: 31,
  setInflightFd: 32,
  gpuSetSocket: 33,
  resetDevice: 34,
  vringKick: 35,
  getMaxMemSlots: 36,
  addMemReg: 37,
  remMemReg: 38,
  setStatus: 39,
  getStatus: 40,
  getSharedObject: 41,
  setDeviceStateFd: 42,
  checkDeviceState: 43,
} as const;

export type RequestName = keyof typeof Request;

/** Back-end to front-end messages, on the socket that SET_BACKEND_REQ_FD gave. */
export const BackendRequest = { iotlbMsg: 1, configChangeMsg: 2, vringHostNotifierMsg: 3, vringCall: 4, vringErr: 5 } as const;

/** Bit numbers of the protocol features. */
export const ProtocolFeature = {
  mq: 0,
  logShmfd: 1,
  rarp: 2,
  replyAck: 3,
  mtu: 4,
  backendReq: 5,
  crossEndian: 6,
  cryptoSession: 7,
  pagefault: 8,
  config: 9,
  backendSendFd: 10,
  hostNotifier: 11,
  inflightShmfd: 12,
  resetDevice: 13,
  inbandNotifications: 14,
  configureMemSlots: 15,
  status: 16,
  xenMmap: 17,
  sharedObject: 18,
  deviceState: 19,
} as const;

/** Bit numbers of the virtio features that are not of one device class. Bit 30 is vhost-user's own and never reaches the driver. */
export const VirtioFeature = {
  logAll: 26,
  indirectDescriptors: 28,
  eventIndex: 29,
  vhostUserProtocolFeatures: 30,
  version1: 32,
} as const;

/** Parameters of SET_DEVICE_STATE_FD: `save` is from the back-end to the front-end; all rings are stopped. */
export const DeviceState = { save: 0, load: 1, stopped: 0 } as const;

/** The feature sets as the 64-bit words that go over the socket. */
export function featureBits(...bits: readonly number[]): bigint {
  return bits.reduce((set, bit) => set | (1n << BigInt(bit)), 0n);
}

export function hasFeature(set: bigint, bit: number): boolean {
  return ((set >> BigInt(bit)) & 1n) === 1n;
}

export const HEADER_BYTES = 12;
/** Most payload of a message; the largest that a layout here has is 268 bytes, the rest is room for messages that are only skipped. */
export const PAYLOAD_BYTES_MAX = 4096;
/** SET_MEM_TABLE carries this many regions at most. */
export const MEM_TABLE_REGIONS_MAX = 8;
/** Most device configuration that GET_CONFIG and SET_CONFIG carry. */
export const CONFIG_BYTES_MAX = 256;
/** The index of a ring travels in 8 bits of SET_VRING_KICK and its siblings. */
export const RING_INDEX_MAX = 255;
/** Largest split virtqueue (virtio 1.2, 2.7). What a device accepts may be less. */
export const RING_SIZE_MAX = 32768;

/** Name of a front-end's message in the specification's spelling, for logs: `SET_MEM_TABLE`. */
export function requestTitle(request: number): string {
  const name = requestNames.get(request);
  return name === undefined ? `message ${request}` : name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase();
}

export const requestNames: ReadonlyMap<number, RequestName> = new Map(
  Object.entries(Request).map(([name, number]) => [number, name as RequestName]),
);
