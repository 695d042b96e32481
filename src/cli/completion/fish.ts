/** The completion script for fish (3 or newer). */
import { argumentBranches, type Branch, commandSubjects, optionBranches, WHERE_OPTIONS } from './cases.ts';
import type { CommandNode } from './tree.ts';

export function fishScript(tree: readonly CommandNode[]): string {
  return `# fish completion for netbus, made by "netbus completion fish"

${switchOf('__netbus_option', optionBranches(tree))}
${switchOf('__netbus_argument', argumentBranches(tree))}
function __netbus_is_command
    contains -- "$argv[1] $argv[2]" ${commandSubjects(tree).map(quote).join(' ')}
end

# Prints the verbs below a verb, a tab and a description behind each.
function __netbus_commands
${linesOf(
  tree.map(({ path, commands }) => ({
    path,
    lines: commands.map(({ name, description }) => `${name}\t${description}`),
  })),
)}end

# Prints the options that make sense behind a verb.
function __netbus_options
${linesOf(
  tree.map(({ path, flags }) => ({
    path,
    lines: flags.map(({ name, description }) => `${name}\t${description}`),
  })),
)}end
${RUNTIME}`;
}

function switchOf(name: string, branches: readonly Branch[]): string {
  const cases = branches.map((branch) => `        case ${pattern(branch)}\n            echo ${quote(branch.value)}\n`);
  return `function ${name}
    switch "$argv[1] $argv[2]"
${cases.join('')}    end
end
`;
}

/** A quoted pattern is a pattern as well in fish's case. */
function pattern({ subject, match }: Branch): string {
  switch (match) {
    case 'all of it':
      return quote(subject);
    case 'its beginning':
      return quote(`${subject}*`);
    case 'its end':
      return quote(`*${subject}`);
  }
}

function linesOf(entries: readonly { path: string; lines: readonly string[] }[]): string {
  const cases = entries
    .filter(({ lines }) => lines.length > 0)
    .map(({ path, lines }) => `        case ${quote(path)}\n            printf '%s\\n' ${lines.map(quote).join(' ')}\n`);
  return `    switch "$argv[1]"\n${cases.join('')}    end\n`;
}

/** Fish knows two escapes between single quotes. */
function quote(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}

const RUNTIME = `
function __netbus
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l current (commandline --current-token --cut-at-cursor)
    set -l path ''
    set -l kind ''
    set -l position 0
    set -l ended ''
    set -l where
    set -l seen
    set -l last (count $words)
    set -l i 2
    while test $i -le $last
        set -l word $words[$i]
        set kind ''
        if test -n "$ended"
            set position (math $position + 1)
        else if test "$word" = --
            set ended 1
        else if string match --quiet -- '--*=*' $word
            set where $where (__netbus_where (string split --max 1 -- = $word))
        else if string match --quiet -- '-*' $word
            set kind (__netbus_option "$path" $word)
            if test -n "$kind"
                set i (math $i + 1)
                if test $i -le $last
                    set where $where (__netbus_where $word $words[$i])
                    set kind ''
                end
            else
                set seen $seen $word
            end
        else if test $position -eq 0; and __netbus_is_command "$path" $word
            set path (string trim -- "$path $word")
        else
            set position (math $position + 1)
        end
        set i (math $i + 1)
    end

    if test -n "$kind"
        __netbus_values "$kind" "$current" '' $words[1] $where
    else if test -z "$ended"; and string match --quiet -- '--*=*' "$current"
        set -l parts (string split --max 1 -- = "$current")
        __netbus_values (__netbus_option "$path" $parts[1])'' "$parts[2]" "$parts[1]=" $words[1] $where
    else if test -z "$ended"; and string match --quiet -- '-*' "$current"
        __netbus_options "$path"
    else
        test $position -eq 0; and __netbus_commands "$path"
        set -l number (math $position + 1)
        for flag in $seen
            test -n "$kind"; or set kind (__netbus_argument "$path $flag" $number)
        end
        test -n "$kind"; or set kind (__netbus_argument "$path" $number)
        __netbus_values "$kind" "$current" '' $words[1] $where
    end
end

# Prints what fits: kind, value, what stands before it in the same word, the program, which daemon is meant.
function __netbus_values
    set -l value $argv[2]
    set -l prefix $argv[3]
    set -l words (string split -- ' ' $argv[1])
    switch "$words[1]"
        case names
            $argv[4] __complete $argv[5..-1] $words[2] -- "$value" 2>/dev/null | string replace --regex -- '^' "$prefix"
        case choices
            printf '%s\\n' "$prefix"$words[2..-1]
        case files
            __fish_complete_path "$value" | string replace --regex -- '^' "$prefix"
        case folders
            __fish_complete_directories "$value" '' | string replace --regex -- '^' "$prefix"
    end
end

# Prints an option and its value where they say which daemon is meant.
function __netbus_where
    if contains -- $argv[1] ${WHERE_OPTIONS.join(' ')}
        printf '%s\\n' $argv[1] (string replace --regex -- '^~/' "$HOME/" $argv[2])
    end
end

complete --command netbus --erase
complete --command netbus --no-files --arguments '(__netbus)'
`;
