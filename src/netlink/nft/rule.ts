// SPDX-License-Identifier: Apache-2.0
// Rules in nft's own language, the part of it that we use, into the kernel's expressions: a list of statements, each
// a comparison, a verdict or an action. What is taken is written in README.md; everything else is an error that names
// its place.
import type { Expression } from './expression.ts'
import { parseKey } from './key.ts'
import { parseMatch } from './match.ts'
import { mergePayloads } from './merge.ts'
import { Scope } from './scope.ts'
import { parseAssignment, parseStatement } from './statement.ts'
import { Tokens } from './tokenizer.ts'
import type { NftFamily } from './types.ts'

/** `nft add rule FAMILY TABLE CHAIN TEXT`; throws INVALID. */
export const compileRule = (family: NftFamily, text: string): readonly Expression[] => {
  const tokens = new Tokens(text)
  const scope = new Scope(family)
  if (tokens.done) throw tokens.error('an empty rule')
  let ended = false
  while (!tokens.done) {
    if (ended) throw tokens.error('nothing may follow a verdict:')
    if (parseStatement(tokens, scope)) {
      ended = scope.out.at(-1)?.kind === 'verdict'
      continue
    }
    const key = parseKey(tokens)
    const only = key.parts.length === 1 ? key.parts[0]! : undefined
    if (only && only.mask === undefined && tokens.accept('set')) parseAssignment(tokens, scope, only.field)
    else parseMatch(tokens, scope, key)
  }
  return mergePayloads(scope.out)
}
