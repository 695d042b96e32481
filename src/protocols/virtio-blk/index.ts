/** virtio-blk as bytes and values, for device and driver. No I/O. */
export * from './config-space.ts';
export * from './features.ts';
export * from './numbers.ts';
export * from './request.ts';
