// SPDX-License-Identifier: Apache-2.0
// scripts/lab as a test sees it: run a command of a lab of one's own, read its status, look for what it left behind.
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

export const root = resolve(import.meta.dirname, '../..')

export interface Result {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** Runs a program of the checkout to its end; never throws for its exit code. */
export const run = (file: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Result> =>
  new Promise(done => {
    const options = { cwd: root, env: { ...process.env, ...env }, maxBuffer: 1 << 24 }
    execFile(join(root, file), args, options, (error, out, err) => {
      done({ code: error === null ? 0 : typeof error.code === 'number' ? error.code : -1, out, err })
    })
  })

export interface Host {
  readonly name: string
  readonly netns: string
  readonly v4: string
  readonly v6: string
  readonly mtu: number
  readonly init: number
  readonly dockerd: number
  readonly weftd: number
  readonly data: string
  readonly sockets: { readonly docker: string; readonly plugin: string; readonly api: string }
}

export interface Status {
  readonly name: string
  readonly state: string
  readonly members: readonly { readonly name: string; readonly pid: number; readonly v4: string }[]
  readonly hosts: readonly Host[]
}

/** A lab with a name and a folder that no other run has. `down` it in a teardown. */
export class Lab {
  readonly name = `t${process.pid % 10000}`
  readonly folder = mkdtempSync(join(tmpdir(), 'weft-lab-test-'))

  run(...args: readonly string[]): Promise<Result> {
    return run('scripts/lab', ['--name', this.name, ...args], this.#env)
  }

  async status(): Promise<Status> {
    return JSON.parse((await this.run('status', '--output', 'json')).out) as Status
  }

  start(...args: readonly string[]): ChildProcess {
    return spawn(join(root, 'scripts/lab'), ['--name', this.name, ...args], {
      cwd: root,
      env: { ...process.env, ...this.#env },
      stdio: ['ignore', 'ignore', 'pipe'],
    })
  }

  /** PID namespaces of the hosts, by which their processes can be recognised when the lab is gone. */
  async pidNamespaces(): Promise<string[]> {
    return (await this.status()).hosts.map(host => readlinkSync(`/proc/${host.init}/ns/pid`))
  }

  /** What there still is of this lab on the machine, in words. */
  leftovers(pidNamespaces: readonly string[] = []): string[] {
    const found: string[] = []
    if (existsSync('/run/netns')) {
      found.push(...readdirSync('/run/netns').filter(ns => ns.startsWith(`${this.name}-`)))
    }
    for (const line of readFileSync('/proc/self/mounts', 'utf8').split('\n')) {
      if (line.includes(this.folder) || line.includes(`/run/netns/${this.name}-`)) found.push(`mount ${line}`)
    }
    for (const pid of readdirSync('/proc').filter(entry => /^\d+$/.test(entry))) {
      try {
        // nobody's process any more, only waiting for process 1 of the machine to take note
        if (/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))) continue
        const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
        const namespace = readlinkSync(`/proc/${pid}/ns/pid`)
        if (command.includes(this.folder) || pidNamespaces.includes(namespace)) found.push(`process ${pid} ${command}`)
      } catch {} // it ended meanwhile
    }
    found.push(...readdirSync(this.folder).map(file => `file ${file}`))
    found.push(...this.#cgroups('/sys/fs/cgroup', 2))
    return found
  }

  #cgroups(dir: string, depth: number): string[] {
    const entries = existsSync(dir) ? readdirSync(dir, { withFileTypes: true }).filter(e => e.isDirectory()) : []
    const mine = entries.filter(e => e.name === `weft-lab-${this.name}`).map(e => `cgroup ${join(dir, e.name)}`)
    return depth === 0 ? mine : [...mine, ...entries.flatMap(e => this.#cgroups(join(dir, e.name), depth - 1))]
  }

  get #env(): NodeJS.ProcessEnv {
    return { WEFT_LAB_DIR: join(this.folder, 'labs') }
  }
}
