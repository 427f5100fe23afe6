// SPDX-License-Identifier: Apache-2.0
// A rule's text into tokens. A word runs over ':', '.', '/', '-' and '*', so that addresses, prefixes and ranges are
// single words; the '.' of a concatenation and the ':' of a map therefore stand between blanks, or before a word.
import { WeftError } from '../../base/errors.ts'

export interface Token {
  readonly kind: 'word' | 'string' | 'set' | 'raw' | 'mark' | 'end'
  /** Of a string or set without its quotes or '@'. */
  readonly text: string
  readonly at: number
  /** Of '@th,64,128'. */
  readonly raw?: { readonly base: 'll' | 'nh' | 'th'; readonly offset: number; readonly length: number }
}

const patterns: readonly (readonly [Token['kind'] | 'blank', RegExp])[] = [
  ['blank', /\s+/y],
  ['string', /"([^"]*)"/y],
  ['raw', /@(ll|nh|th),(\d{1,4}),(\d{1,4})/y],
  ['set', /@([A-Za-z_][A-Za-z0-9_/\\.-]*)/y],
  ['word', /::[0-9A-Fa-f:.]*(?:\/\d+)?/y],
  ['word', /[A-Za-z0-9_*][A-Za-z0-9_./:*-]*/y],
  ['mark', /==|!=|<=|>=|[{}[\],.:&|=<>!]/y],
]

export class Tokens {
  readonly text: string
  readonly #tokens: readonly Token[]
  #next = 0

  constructor(text: string) {
    this.text = text
    const tokens: Token[] = []
    for (let at = 0; at < text.length; ) {
      const found = this.#read(at)
      if (found === undefined) throw this.error('unexpected character', { kind: 'mark', text: text[at]!, at })
      if (found.kind !== 'blank') tokens.push(found as Token)
      at += found.size
    }
    tokens.push({ kind: 'end', text: '', at: text.length })
    this.#tokens = tokens
  }

  #read(at: number): (Omit<Token, 'kind'> & { kind: Token['kind'] | 'blank'; size: number }) | undefined {
    for (const [kind, pattern] of patterns) {
      pattern.lastIndex = at
      const match = pattern.exec(this.text)
      if (match === null) continue
      if (kind === 'raw') {
        const base = match[1] as 'll' | 'nh' | 'th'
        const raw = { base, offset: Number(match[2]), length: Number(match[3]) }
        return { kind, text: match[0], at, size: match[0].length, raw }
      }
      let text = match[1] ?? match[0]
      let size = match[0].length
      // the ':' of a map, written right behind its key
      if (kind === 'word' && text.endsWith(':') && !text.endsWith('::')) {
        text = text.slice(0, -1)
        size--
      }
      return { kind, text, at, size }
    }
    return undefined
  }

  get done(): boolean {
    return this.peek().kind === 'end'
  }
  peek(ahead = 0): Token {
    return this.#tokens[Math.min(this.#next + ahead, this.#tokens.length - 1)]!
  }
  take(): Token {
    const token = this.peek()
    if (token.kind !== 'end') this.#next++
    return token
  }
  /** Is the next one this word or mark? */
  sees(text: string, ahead = 0): boolean {
    const token = this.peek(ahead)
    return token.text === text && (token.kind === 'word' || token.kind === 'mark')
  }
  /** Takes it if it is next. */
  accept(text: string): boolean {
    if (!this.sees(text)) return false
    this.#next++
    return true
  }
  expect(text: string): void {
    if (!this.accept(text)) throw this.error(`expected "${text}"`)
  }
  word(what: string): Token {
    const token = this.take()
    if (token.kind !== 'word') throw this.error(`expected ${what}`, token)
    return token
  }
  /** Decimal or 0x. */
  number(what: string, max: number): number {
    const token = this.word(what)
    const value = /^(\d{1,10}|0x[0-9a-f]{1,8})$/i.test(token.text) ? Number(token.text) : Number.NaN
    if (!(value <= max)) throw this.error(`expected ${what} up to ${max}`, token)
    return value
  }

  /** INVALID; names the place, counted from 1, and the token that stands there. */
  error(why: string, token = this.peek()): WeftError {
    const what = token.kind === 'end' ? 'at the end' : `at ${token.at + 1}, "${token.text}"`
    return new WeftError('INVALID', `compile nft rule: ${why} ${what}: ${this.text}`)
  }
}
