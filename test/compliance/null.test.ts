import { openNullSource } from '../../src/backends/null/null.ts';
import { MemoryRegion } from '../support/memory-region.ts';
import { type DeviceFixture, deviceCompliance } from './device-compliance.ts';

const MIB = 1024 * 1024;

function fixture(options: { readOnly?: boolean; depth?: number }): DeviceFixture {
  const source = openNullSource({ capacityBytes: 8 * MIB, ...options });
  return { device: source.open(), region: new MemoryRegion(8 * MIB), content: 'zeroes', quietAt: 'cut' };
}

deviceCompliance('null', () => fixture({}));
deviceCompliance('null, read-only', () => fixture({ readOnly: true }));
deviceCompliance('null, depth 1', () => fixture({ depth: 1 }));
deviceCompliance('null, depth 7', () => fixture({ depth: 7 }));
