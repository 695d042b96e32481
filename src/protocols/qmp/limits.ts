/** Bounds of a QMP connection. QEMU runs what a guest and its configuration say, so its monitor is an outsider like any other. */

/** The longest line that is accepted. The largest answer in use, query-qmp-schema, has 0.2 MB. */
export const LINE_BYTES_MAX = 8 * 1024 * 1024;
/** Commands without an answer. QEMU itself takes 8 ahead and leaves the others in the socket. */
export const COMMANDS_MAX = 64;
