/** What only the host with the issuing key has: the issuer, its invitations, and the certificates that those who join are shown. */
import { join } from 'node:path';
import { NetbusError } from '../device/errors.ts';
import type { Directory } from '../directory/directory.ts';
import { type Identity, loadIssuing } from '../directory/identity.ts';
import { InvitationStore } from '../directory/invitations.ts';
import { Issuer } from '../directory/issuer.ts';
import { SignedDirectory } from '../directory/signed-directory.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { Config } from './config.ts';
import { directoryFolder } from './directory.ts';

export interface IssuingHost extends Pick<Issuer, 'invite' | 'join' | 'renew' | 'checkEvict' | 'evict' | 'move'> {
  /** False: no invitation was made for long, so whoever wants to join has none. */
  readonly expectsSomebody: boolean;
  /** Above this host's own, the root last: PEM texts. */
  readonly certificates: readonly string[];
}

/**
 * Undefined on every other host. An issuing key that cannot be used stops nothing but invitations, renewals and evictions: it is told in the log, and the
 * reason is returned for `status`.
 */
export async function openIssuingHost(
  config: Config,
  identity: Identity,
  directory: Directory,
  { clock, log }: { clock: Clock; log: Log },
): Promise<{ issuing?: IssuingHost; problem?: string }> {
  const { cluster, host, pki, stateDir } = config;
  if (!(directory instanceof SignedDirectory) || directory.list()?.list.issuer !== host) return {};
  try {
    const issuing = await loadIssuing({ ca: pki.ca, ...pki.issuing }, cluster, clock);
    if (issuing === undefined) {
      throw new NetbusError(
        'config',
        `${pki.issuing.key} does not exist: put the issuing key of cluster ${cluster} back from a backup`,
      );
    }
    const file = join(directoryFolder(stateDir), 'invitations.json');
    const invitations = await InvitationStore.open({ file, clock });
    if (invitations.damaged !== undefined) log.error({ file }, invitations.damaged);
    const { ca } = identity;
    const issuer = new Issuer({ ca, issuing, directory, invitations, clock });
    return {
      issuing: {
        get expectsSomebody() {
          return invitations.expectsSomebody;
        },
        certificates: [issuing.certificate, ca],
        invite: (...given) => issuer.invite(...given),
        join: (...given) => issuer.join(...given),
        renew: (...given) => issuer.renew(...given),
        checkEvict: (...given) => issuer.checkEvict(...given),
        evict: (...given) => issuer.evict(...given),
        move: (...given) => issuer.move(...given),
      },
    };
  } catch (thrown) {
    const { message } = NetbusError.from(thrown);
    log.error({ reason: message }, 'this host cannot issue certificates');
    return { problem: `this host cannot invite, renew or evict: ${message}` };
  }
}
