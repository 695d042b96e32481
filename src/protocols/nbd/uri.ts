/** NBD URIs (NetworkBlockDevice/nbd, doc/uri.md): where a server listens, and which of its exports is meant. */
import { NetbusError } from '../../device/errors.ts';
import { parseAddress } from '../../lib/address.ts';
import { DEFAULT_PORT, STRING_BYTES_MAX } from './constants.ts';

/** As long as an export's name can be when each byte of it is escaped, and an address. */
export const NBD_URI_CHARACTERS_MAX = 3 * STRING_BYTES_MAX + 512;
/** unix(7): sun_path, with its end. */
const SOCKET_PATH_BYTES_MAX = 107;

const FORMS = 'nbd://HOST[:PORT]/EXPORT or nbd+unix:///EXPORT?socket=/PATH';

export type NbdServer =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | { readonly kind: 'unix'; readonly path: string };

export interface NbdTarget {
  /** In one form for all ways to write it. */
  readonly uri: string;
  readonly server: NbdServer;
  /** Name of the server's export; empty: its default one. */
  readonly exportName: string;
}

/** Throws `usage` with what is wrong. */
export function parseNbdUri(text: string): NbdTarget {
  const wrong = (message: string) => new NetbusError('usage', `"${text.slice(0, 200)}" ${message}`);
  if (text.length > NBD_URI_CHARACTERS_MAX) throw wrong(`is longer than ${NBD_URI_CHARACTERS_MAX} characters`);
  const parts = /^([a-z+]+):\/\/([^/?#]*)([^?#]*)(?:\?([^#]*))?$/i.exec(text);
  if (parts === null) throw wrong(`is no NBD URI: write ${FORMS}`);
  const [, scheme, authority, path, query = ''] = parts;
  const exportName = decoded(path.replace(/^\//, ''));
  if (exportName === undefined || exportName.includes('\0')) throw wrong('has an export name that is not UTF-8, escaped');
  if (Buffer.byteLength(exportName) > STRING_BYTES_MAX)
    throw wrong(`has an export name of more than ${STRING_BYTES_MAX} bytes`);
  const name = encodeURIComponent(exportName).replaceAll('%2F', '/');
  switch (scheme.toLowerCase()) {
    case 'nbd': {
      if (query !== '') throw wrong('has parameters, and nbd:// takes none');
      if (authority.includes('@')) throw wrong('names a user, which is for TLS alone: leave it out');
      const address = parseAddress(authority, DEFAULT_PORT);
      if (address === undefined) throw wrong(`does not say where the server listens: write ${FORMS}`);
      const host = address.host.toLowerCase();
      const shown = host.includes(':') ? `[${host}]` : host;
      return {
        uri: `nbd://${shown}:${address.port}/${name}`,
        server: { kind: 'tcp', host, port: address.port },
        exportName,
      };
    }
    case 'nbd+unix': {
      const socket = decoded(/^socket=([^&]*)$/.exec(query)?.[1] ?? '');
      if (authority !== '' || socket === undefined || !socket.startsWith('/') || socket.includes('\0'))
        throw wrong(`does not name the server's socket by its whole path: write ${FORMS}`);
      if (Buffer.byteLength(socket) > SOCKET_PATH_BYTES_MAX)
        throw wrong(`has a socket path of more than ${SOCKET_PATH_BYTES_MAX} bytes, which the system does not take`);
      const shown = encodeURIComponent(socket).replaceAll('%2F', '/');
      return { uri: `nbd+unix:///${name}?socket=${shown}`, server: { kind: 'unix', path: socket }, exportName };
    }
    case 'nbds':
    case 'nbds+unix':
      throw wrong(
        'asks for TLS, which Netbus does not speak to NBD servers: let "nbdkit nbd" or "qemu-nbd --image-opts" on this host do it, and name its unix socket (nbd+unix:)',
      );
    default:
      throw wrong(`is no NBD URI that Netbus knows: write ${FORMS}`);
  }
}

function decoded(text: string): string | undefined {
  try {
    return decodeURIComponent(text);
  } catch {
    return undefined;
  }
}
