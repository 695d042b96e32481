/**
 * Reasons for a test to be skipped. In CI every skip counts as a failure, because set-up installs all that tests need, except
 * for what no package can give: those reasons start with this.
 */
export const NOT_POSSIBLE_HERE = 'not possible here: ';
