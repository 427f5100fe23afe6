// SPDX-License-Identifier: Apache-2.0
// When a node counts as silent, dead, or back. Everything is counted in probes, not in time: while this process stood
// still nobody was asked, so nobody was silent.

/**
 * unasked: has not answered yet, for less than a second. silent: gets no new connections. dead: those that it has are
 * forgotten as well.
 */
export type Verdict = 'unasked' | 'answers' | 'silent' | 'dead'

/** ms between two probes of one target. */
export const everyMs = 200
/** Misses in a row until a node gets no new connections: at most 0.8 s after its last answer. */
export const silentAfter = 3
/** Until those that it has are forgotten: a second after its last answer at most. */
export const deadAfter = 4
/** A second's worth of probes. */
export const secondOf = 5
/**
 * Answers in a row until it gets connections again. As many as make it silent: what loses every second or third packet
 * stays out, and coming back takes as long as leaving.
 */
export const backAfter = 3

export interface Row {
  /** Probes in a row that were not answered, up to the last. */
  readonly missed: number
  /** The same of those that were. */
  readonly answered: number
}

export const count = ({ missed, answered }: Row, heard: boolean): Row =>
  heard ? { missed: 0, answered: answered + 1 } : { missed: missed + 1, answered: 0 }

/**
 * `elsewhere`: another node has answered every probe of the last second. Without that it may be this host that is cut
 * off, and connections that others would only wait for are kept.
 */
export const judge = (before: Verdict, { missed, answered }: Row, elsewhere: boolean): Verdict => {
  switch (before) {
    case 'unasked':
      return answered > 0 ? 'answers' : missed >= secondOf ? 'silent' : 'unasked'
    case 'answers':
      return missed >= silentAfter ? 'silent' : 'answers'
    case 'silent':
      if (missed >= deadAfter && elsewhere) return 'dead'
      return answered >= backAfter ? 'answers' : 'silent'
    case 'dead':
      return answered >= backAfter ? 'answers' : 'dead'
  }
}
