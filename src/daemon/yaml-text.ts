/** A YAML file that people write, checked against a schema; every mistake is told with its line. */
import { type Document, isMap, isNode, isScalar, LineCounter, type Node, parseDocument } from 'yaml';
import type { z } from 'zod';
import { NetbusError } from '../device/errors.ts';
import { nearest } from '../lib/nearest.ts';

export const CONFIG_BYTES_MAX = 1024 * 1024;
/** Most mistakes that are told at once: a wrong file should not scroll the first one away. */
const PROBLEMS_MAX = 20;

type Path = readonly PropertyKey[];

export class YamlText {
  readonly #file: string;
  readonly #lines = new LineCounter();
  readonly #document: Document;

  /** `file` is for messages only. */
  constructor(file: string, text: string) {
    this.#file = file;
    this.#document = parseDocument(text, { lineCounter: this.#lines, prettyErrors: false });
  }

  /** The value. Throws `config` with one line per mistake. */
  parse<Schema extends z.ZodType>(schema: Schema): z.output<Schema> {
    const { errors } = this.#document;
    if (errors.length > 0) this.#fail(errors.map((error) => this.#at(error.pos[0], syntaxProblem(error.code, error.message))));
    const result = schema.safeParse(this.#value());
    if (!result.success) {
      const { issues } = result.error;
      const told = issues.filter((issue) => !this.#isMisspelt(schema, issue, issues));
      this.#fail(told.flatMap((issue) => this.#issueProblems(schema, issue)));
    }
    return result.data as z.output<Schema>;
  }

  /** One line about what is at `path`, or at the deepest part of it that is there. */
  problem(path: Path, text: string): string {
    return this.#at(this.#offset(path), text);
  }

  #value(): unknown {
    try {
      // Aliases are bounded: a few lines of them can stand for a value that fills the memory.
      const value: unknown = this.#document.toJS({ maxAliasCount: 100 });
      if (value === null || value === undefined) this.#fail([this.#at(0, 'the file is empty; it needs a map of settings')]);
      return value;
    } catch (thrown) {
      if (thrown instanceof NetbusError) throw thrown;
      return this.#fail([this.#at(0, `not usable YAML: ${oneLine((thrown as Error).message)}`)]);
    }
  }

  #issueProblems(schema: z.ZodType, issue: z.core.$ZodIssue): string[] {
    const where = issue.path.map(String).join('.');
    const prefix = where === '' ? '' : `${where}: `;
    switch (issue.code) {
      case 'unrecognized_keys': {
        const allowed = allowedKeys(schema, issue.path);
        return issue.keys.map((key) => {
          const near = this.#meant(schema, issue.path, key);
          const hint = near === undefined ? '' : `did you mean "${near}"? `;
          return this.#at(
            this.#offset([...issue.path, key]),
            `${prefix}unknown key "${key}"; ${hint}allowed: ${allowed.join(', ')}`,
          );
        });
      }
      case 'invalid_type': {
        const value = this.#document.getIn(issue.path);
        if (value === undefined || !this.#document.hasIn(issue.path)) {
          return [this.problem(issue.path, `${prefix}is missing; it must be ${kindName(issue.expected)}`)];
        }
        return [this.problem(issue.path, `${prefix}is ${describe(value)}; it must be ${kindName(issue.expected)}`)];
      }
      case 'invalid_value': {
        const value = this.#document.getIn(issue.path);
        return [this.problem(issue.path, `${prefix}is ${describe(value)}; allowed: ${issue.values.map(String).join(', ')}`)];
      }
      case 'invalid_key': {
        const key = String(issue.path.at(-1));
        return [
          this.problem(
            issue.path,
            `${prefix}"${key}" is not a name; ${issue.issues.map((inner) => oneLine(inner.message)).join('; ')}`,
          ),
        ];
      }
      case 'too_big':
        return [this.problem(issue.path, `${prefix}is too long; at most ${issue.maximum} characters`)];
      default: {
        // Messages of our own schemas say what is allowed.
        const value = this.#document.getIn(issue.path);
        const found = issue.message.startsWith(JSON.stringify(value)) ? '' : `is ${describe(value)}; `;
        return [this.problem(issue.path, `${prefix}${found}${oneLine(issue.message)}`)];
      }
    }
  }

  /** The key that was most probably meant by one that is not allowed: rather one that is not there yet. */
  #meant(schema: z.ZodType, path: Path, key: string): string | undefined {
    const allowed = allowedKeys(schema, path);
    const missing = allowed.filter((name) => !this.#document.hasIn([...path, name]));
    return nearest(key, missing) ?? nearest(key, allowed);
  }

  /** A key that is missing because it is there under a name that is nearly right: the other problem says it all. */
  #isMisspelt(schema: z.ZodType, issue: z.core.$ZodIssue, issues: readonly z.core.$ZodIssue[]): boolean {
    if (issue.code !== 'invalid_type') return false;
    const folder = issue.path.slice(0, -1).join('.');
    return issues.some(
      (other) =>
        other.code === 'unrecognized_keys' &&
        other.path.join('.') === folder &&
        other.keys.some((key) => this.#meant(schema, other.path, key) === issue.path.at(-1)),
    );
  }

  /** Where the key (not the value) at `path` stands: that is the line that people look for. */
  #offset(path: Path): number {
    let node: unknown = this.#document.contents;
    let offset = startOf(node) ?? 0;
    for (const step of path) {
      if (!isMap(node)) break;
      const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === String(step));
      if (pair === undefined) break;
      offset = startOf(pair.key) ?? offset;
      node = pair.value;
    }
    return offset;
  }

  #at(offset: number, text: string): string {
    return `${this.#file}:${this.#lines.linePos(offset).line || 1}: ${text}`;
  }

  #fail(problems: string[]): never {
    const told = problems.slice(0, PROBLEMS_MAX);
    if (told.length < problems.length) told.push(`${this.#file}: and ${problems.length - told.length} more`);
    throw new NetbusError('config', told.join('\n'));
  }
}

function startOf(node: unknown): number | undefined {
  return isNode(node) ? (node as Node).range?.[0] : undefined;
}

function syntaxProblem(code: string, message: string): string {
  if (code === 'DUPLICATE_KEY') return 'the key is there twice; each key may be given once';
  if (code === 'MULTIPLE_DOCS') return 'a second document begins; the file has one';
  return `not valid YAML: ${oneLine(message)}`;
}

/** The keys of the object schema at `path`; records and wrappers are looked through. */
function allowedKeys(schema: z.ZodType, path: Path): string[] {
  let current = unwrap(schema);
  for (const step of path) {
    const { def } = current as { def?: { shape?: Record<string, z.ZodType>; valueType?: z.ZodType } };
    const next = def?.shape?.[String(step)] ?? def?.valueType;
    if (next === undefined) return [];
    current = unwrap(next);
  }
  return Object.keys((current as { def?: { shape?: object } }).def?.shape ?? {});
}

function unwrap(schema: z.ZodType): z.ZodType {
  const { def } = schema as { def?: { innerType?: z.ZodType } };
  return def?.innerType === undefined ? schema : unwrap(def.innerType);
}

function describe(value: unknown): string {
  if (value === null || value === undefined) return 'empty';
  switch (typeof value) {
    case 'string':
      return `"${value}"`;
    case 'number':
    case 'boolean':
    case 'bigint':
      return `the ${typeof value === 'boolean' ? 'boolean' : 'number'} ${value}`;
    default:
      return isMap(value) || (typeof value === 'object' && !Array.isArray(value) && !('items' in value)) ? 'a map' : 'a list';
  }
}

function kindName(expected: string): string {
  switch (expected) {
    case 'string':
      return 'a text (numbers and yes/no need quotes)';
    case 'object':
    case 'record':
      return 'a map of keys and values';
    case 'array':
      return 'a list';
    default:
      return `a ${expected}`;
  }
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim();
}
