/** Versions with dots: 20.19.0, 6.1.0-38-amd64, 7.2.22. */

/** Whether `version` is older than `bound`, by the numbers that `bound` has. */
export function isBefore(version: string, bound: string): boolean {
  const [own, other] = [numbersOf(version), numbersOf(bound)];
  for (let i = 0; i < other.length; i++) {
    const difference = (own[i] ?? 0) - other[i];
    if (difference !== 0) return difference < 0;
  }
  return false;
}

function numbersOf(version: string): number[] {
  const match = /\d+(\.\d+)*/.exec(version);
  return match === null ? [] : match[0].split('.').map(Number);
}
