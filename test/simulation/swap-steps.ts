/** The steps of a swap as they are stored: what makes them visible to whoever strikes just then. */
import type { RecordFiles } from '../../src/daemon/record-files.ts';

interface Stored {
  readonly vm: string;
  readonly name: string;
  readonly kind?: string;
  readonly state?: string;
  readonly copy?: { readonly state: string };
  readonly swapped?: object;
  readonly swap?: object;
}

/** Tells each step that is about to be stored, of "vm/name". */
export function tellingSteps(files: RecordFiles, tell: (step: string, key: string) => void): RecordFiles {
  return {
    ...files,
    write: (path, content, mode) => {
      look(content);
      return files.write(path, content, mode);
    },
    overwrite: (path, position, content) => {
      look(content);
      return files.overwrite(path, position, content);
    },
  };

  function look(content: string): void {
    const stored = parsed(content);
    const step = stored && stepOf(stored);
    if (step !== undefined) tell(step, `${stored!.vm}/${stored!.name}`);
  }
}

function stepOf({ kind, state, copy, swapped, swap }: Stored): string | undefined {
  if (kind === 'swap') return state;
  if (copy !== undefined) return copy.state;
  if (swapped !== undefined) return 'decided';
  return swap === undefined ? undefined : 'deciding';
}

/** A record's file has a line of its own before the record: see src/daemon/record-slots.ts. */
function parsed(content: string): Stored | undefined {
  try {
    return JSON.parse(content.slice(content.indexOf('\n'), content.lastIndexOf('}') + 1)) as Stored;
  } catch {
    return undefined;
  }
}
