// SPDX-License-Identifier: Apache-2.0
// Programs of a bench in processes of their own, asked one question at a time over Node's IPC. They are given as
// JavaScript (compile): what they cost is what weftd costs.
import { fork } from 'node:child_process'
import { within } from './interleave.ts'

/** The longest that anything is waited for. */
const answerMs = 240_000

/** Instead of an answer. */
export interface Failed {
  readonly failed: string
}

export interface Child<Question, Answer> {
  /** What it said unasked at its start. */
  readonly first: Answer
  /** Rejects when it fails or ends. */
  ask(question: Question): Promise<Answer>
  /** kill -9. */
  kill(): Promise<void>
}

/** Resolves with its first answer, which it gives unasked. */
export const startChild = async <Question, Answer>(
  program: string,
  args: readonly string[],
): Promise<Child<Question, Answer>> => {
  const child = fork(program, [...args])
  const gone = new Promise<void>(resolve => child.once('exit', () => resolve()))
  const next = (): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const ended = (): void => reject(new Error(`${program} ended`))
      child.once('exit', ended)
      child.once('message', (said: Answer | Failed) => {
        child.removeListener('exit', ended)
        if (Object.hasOwn(said as object, 'failed')) reject(new Error((said as Failed).failed))
        else resolve(said as Answer)
      })
    })
  return {
    first: await next(),
    ask(question) {
      const said = next()
      child.send(question as object)
      return within(answerMs, said, `an answer to ${JSON.stringify(question).slice(0, 80)}`)
    },
    async kill() {
      child.kill('SIGKILL')
      await gone
    },
  }
}

/** The child's side: answers every question by `attend`, ends with its parent. */
export const answering = <Question, Answer>(attend: (question: Question) => Promise<Answer>): void => {
  const say = (said: Answer | Failed): void => void process.send!(said)
  process.on('message', (question: Question) => {
    attend(question).then(say, error => say({ failed: error instanceof Error ? (error.stack ?? '') : String(error) }))
  })
  process.on('disconnect', () => process.exit(0))
}
