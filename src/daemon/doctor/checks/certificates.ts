/** The certificates: as the daemon checks them, and how long they last. */
import { X509Certificate } from 'node:crypto';
import { adviceOnMissing } from '../../../directory/identity.ts';
import { type Check, type Finding, failure, ok, skipped, warning, withoutConfig } from '../check.ts';
import { errorCode, errorText, type HostFacts } from '../facts.ts';

const RENEWAL =
  'see in "netbus members" and in the log why it was not renewed, or give the host a new one (docs/operations.md)';
/** Its end is years away, and no daemon can renew it. */
const ISSUING_RENEWAL =
  'make a new one with the root key, put it in the place of issuing.crt on the issuing host, and restart the daemon there (docs/operations.md, "Making a cluster")';
const DAY_MS = 24 * 60 * 60 * 1000;
const WARN_BELOW_DAYS = 10;
const BLOCK = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

export const certificates: Check = {
  name: 'certificates',
  async run({ facts, config, pki, identity }) {
    if (config.name !== 'loaded') return [withoutConfig];
    const ifMissing = await adviceOnMissing(pki, (path) => facts.stat(path));
    const dates = [
      ...(await checkDates(facts, { path: pki.ca, what: 'the CA certificate', ifMissing: ifMissing.ca }, [
        { name: 'the CA certificate', advice: 'make a new root, and join all hosts anew' },
      ])),
      ...(await checkDates(facts, { path: pki.certificate, what: 'the certificate', ifMissing: ifMissing.certificate }, [
        { name: "this host's certificate", advice: RENEWAL },
        { name: 'the issuing certificate', advice: ISSUING_RENEWAL },
      ])),
    ];
    const loaded = await identity();
    const troubles = dates.filter(({ result }) => result !== 'ok');
    if ('problem' in loaded) {
      // Dates are told already, in fewer words.
      if (troubles.some(({ result }) => result === 'error' || result === 'skipped')) return troubles;
      const cut = loaded.problem.lastIndexOf(': ');
      return [
        failure(
          cut < 0 ? loaded.problem : loaded.problem.slice(0, cut),
          cut < 0 ? 'see docs/operations.md' : loaded.problem.slice(cut + 2),
        ),
        ...dates,
      ];
    }
    const { cluster, host } = loaded.identity;
    if (cluster !== config.config.cluster || host !== config.config.host) {
      const wanted = `${config.config.host} of ${config.config.cluster}`;
      return [
        failure(`${pki.certificate} is for ${host} of ${cluster}, and the config is for ${wanted}`, 'correct one of them'),
        ...dates,
      ];
    }
    return [ok(`${pki.certificate} is for ${host} of ${cluster}, of the CA in ${pki.ca}`), ...dates];
  },
};

/** One finding for each certificate of a file. `wanted` says what they are, in the file's order, and what to do at their end. */
async function checkDates(
  facts: HostFacts,
  { path, what, ifMissing }: { readonly path: string; readonly what: string; readonly ifMissing: string },
  wanted: readonly { readonly name: string; readonly advice: string }[],
): Promise<Finding[]> {
  let text: string;
  try {
    text = await facts.readText(path);
  } catch (thrown) {
    if (errorCode(thrown) === 'ENOENT') return [failure(`${path} (${what}) is not there`, ifMissing)];
    return [skipped(`${path} (${what}) cannot be read: ${errorText(thrown)}`, 'run this as root')];
  }
  return (text.match(BLOCK) ?? []).slice(0, wanted.length).flatMap((block, index) => {
    try {
      return [dateFinding(new X509Certificate(block), wanted[index], facts.wallTime())];
    } catch {
      // What it is instead, the daemon's own check says.
      return [];
    }
  });
}

function dateFinding(
  { validFrom, validTo }: X509Certificate,
  { name: what, advice }: { readonly name: string; readonly advice: string },
  now: number,
): Finding {
  const [begin, end] = [Date.parse(validFrom), Date.parse(validTo)];
  if (now < begin)
    return failure(`${what} is valid from ${isoDay(begin)} on, and here it is ${isoDay(now)}`, "set this host's clock right");
  if (now > end) {
    const found = `${what} expired on ${isoDay(end)}, and here it is ${isoDay(now)}: no new session begins`;
    return failure(found, `if this host's clock is right: ${advice}`);
  }
  const days = Math.floor((end - now) / DAY_MS);
  const found = `${what} is valid until ${isoDay(end)}, ${days} ${days === 1 ? 'day' : 'days'}`;
  return days < WARN_BELOW_DAYS ? warning(found, advice) : ok(found);
}

function isoDay(time: number): string {
  return new Date(time).toISOString().slice(0, 10);
}
