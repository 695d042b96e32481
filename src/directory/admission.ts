/**
 * Admissions tell the certificates of a host's present membership from those of an earlier one. Each time a host joins, the issuer draws a number, writes it
 * into the member list, and begins the serial number of every certificate of that membership with it, renewed ones too. A certificate that begins
 * otherwise is refused: no clock is compared, and nothing has to be remembered of an evicted host. docs/decisions/0010.
 */
import { randomBytes } from 'node:crypto';

/** 8 bytes as hexadecimal digits in lower case; the first is 01 to 7f, so that the serial number is positive and keeps its length. */
const ADMISSION = /^(?!00)[0-7][0-9a-f]{15}$/;
const ADMISSION_BYTES = 8;
/** RFC 5280, 4.1.2.2 allows 20. The second half is random: unique, and nothing that a forger could predict. */
const SERIAL_BYTES = 16;

export function newAdmission(): string {
  const bytes = randomBytes(ADMISSION_BYTES);
  bytes[0] = bytes[0] & 0x7f || 1;
  return bytes.toString('hex');
}

export function isAdmission(text: string): boolean {
  return ADMISSION.test(text);
}

/** A certificate's serial number under `admission`, hexadecimal. */
export function serialNumberOf(admission: string): string {
  return admission + randomBytes(SERIAL_BYTES - ADMISSION_BYTES).toString('hex');
}

/** The admission that a certificate was issued under; undefined for a certificate that was not issued under any. */
export function admissionOf(serialNumber: string): string | undefined {
  if (serialNumber.length !== 2 * SERIAL_BYTES) return undefined;
  const admission = serialNumber.slice(0, 2 * ADMISSION_BYTES).toLowerCase();
  return isAdmission(admission) ? admission : undefined;
}
