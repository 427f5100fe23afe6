// SPDX-License-Identifier: Apache-2.0
// Who a container is to the cluster: name, labels, compose project and service, as its user gave them.
import { WeftError } from '../base/errors.ts'
import type { Context } from '../control/context.ts'
import type { Holdings } from '../control/holdings.ts'
import type { Workload } from '../model/endpoint.ts'
import type { Engine, EngineContainer } from './engine.ts'

/** Asks the engine for what the image brings; that is remembered. */
export type Identity = (container: Described, aliases?: readonly string[]) => Promise<Workload>

/** What both the list of containers and the full look tell. */
export type Described = Pick<EngineContainer, 'Id' | 'Name' | 'Image' | 'Config'>

export const openIdentity = (
  engine: Engine,
  { mirror, log }: Pick<Context, 'mirror' | 'log'>,
  holdings: Pick<Holdings, 'endpoints'>,
): Identity => {
  const images = new Map<string, Readonly<Record<string, string>>>()
  /** undefined: the image was removed, which Docker does under a stopped container. */
  const imageLabels = async (image: string): Promise<Readonly<Record<string, string>> | undefined> => {
    const known = images.get(image)
    if (known) return known
    const labels = await engine.imageLabels(image).catch(error => {
      if (!(error instanceof WeftError && error.code === 'NOT_FOUND')) throw error
    })
    if (!labels) return undefined
    if (images.size > 1000) images.clear()
    images.set(image, labels)
    return labels
  }
  /** A container's labels never change: what counted once counts. */
  const labelsBefore = (container: string): Workload['labels'] | undefined => {
    for (const [endpoint, network] of holdings.endpoints()) {
      const workload = mirror.snapshot.endpoints(network).get(endpoint)?.record.workload
      if (workload?.container === container) return workload.labels
    }
    return undefined
  }
  return async (container, aliases = []) => {
    const fromImage = await imageLabels(container.Image)
    if (fromImage) return workloadOf(container, aliases, fromImage)
    const before = labelsBefore(container.Id)
    if (before) return workloadOf({ ...container, Config: { ...container.Config, Labels: before } }, aliases, {})
    const all = container.Config.Labels ?? {}
    const workload = workloadOf(container, aliases, all) // any of them may be the image's
    const lost = Object.keys(all).filter(key => !(key in workload.labels))
    if (lost.length > 0)
      log.warn(
        { container: workload.name, labels: lost },
        'these labels do not count: its image was removed, and may have brought them; create the container anew',
      )
    return workload
  }
}

const compose = 'com.docker.compose.'
/** What an image brings may not claim to be what only the one who starts the container can say. */
const guarded = (key: string): boolean =>
  key.startsWith('weft.') || key.startsWith(compose) || key.startsWith('com.docker.swarm.')
/** Compose sets these on containers; on the images that it builds only project, service and version. */
const marks = ['config-hash', 'container-number'].map(name => compose + name)

export const workloadOf = (
  { Id, Name, Config }: Described,
  aliases: readonly string[],
  fromImage: Readonly<Record<string, string>>,
): Workload => {
  const all = Config.Labels ?? {}
  const composed = marks.some(mark => mark in all && !(mark in fromImage))
  const given = ([key, value]: [string, string]): boolean =>
    !guarded(key) || value !== fromImage[key] || (composed && key.startsWith(compose))
  const labels = Object.fromEntries(Object.entries(all).filter(given))
  const project = labels['com.docker.compose.project']
  const service = labels['weft.service'] ?? labels['com.docker.compose.service']
  return {
    container: Id,
    name: Name.replace(/^\//, ''),
    hostname: Config.Hostname,
    aliases: aliases.filter(alias => alias !== Id.slice(0, 12)),
    labels,
    ...(project === undefined ? {} : { project }),
    ...(service === undefined ? {} : { service }),
  }
}
