import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { TmsError } from '../errors.ts'
import { isAgent, type Agent } from './define.ts'

/**
 * The agents in these folders: every .js and .mjs file that isn't a test, by its default export. A folder that isn't there
 * holds none. A file that doesn't load ends the start: an agent that silently isn't there is found too late.
 */
export async function loadAgents(folders: readonly string[]): Promise<readonly Agent[]> {
  const found = new Map<string, { readonly agent: Agent; readonly path: string }>()
  const functions = new Map<string, string>()
  for (const folder of folders) {
    for (const path of await modulesIn(folder)) {
      const agent = await load(path)
      const other = found.get(agent.name)
      if (other) throw broken(path, `agent ${agent.name} is already defined`, `by ${other.path}`)
      for (const fn of Object.keys(agent.functions)) {
        const taken = functions.get(fn)
        if (taken !== undefined) throw broken(path, `function ${fn} is already defined`, `by agent ${taken}`)
        functions.set(fn, agent.name)
      }
      found.set(agent.name, { agent, path })
    }
  }
  return [...found.values()].map(({ agent }) => agent)
}

async function modulesIn(folder: string): Promise<string[]> {
  try {
    const entries = await readdir(folder, { withFileTypes: true })
    return entries
      .filter((entry) => entry.isFile() && /\.m?js$/.test(entry.name) && !/\.(test|spec)\.m?js$/.test(entry.name))
      .map((entry) => join(folder, entry.name))
      .sort()
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return []
    throw broken(folder, 'the folder of agents cannot be read', error instanceof Error ? error.message : String(error))
  }
}

async function load(path: string): Promise<Agent> {
  let module: unknown
  try {
    module = await import(pathToFileURL(path).href)
  } catch (error) {
    throw broken(path, 'this agent does not load', error instanceof Error ? error.message : String(error), error)
  }
  const exported = typeof module === 'object' && module !== null && 'default' in module ? module.default : undefined
  if (isAgent(exported)) return exported
  throw broken(path, 'this file exports no agent', 'its default export is not what defineAgent returns')
}

function broken(path: string, what: string, why: string, cause?: unknown): TmsError {
  return new TmsError(
    { code: 'CONFIG_INVALID', what: `${path}: ${what}`, why, next: ['tms agents new <name>', `node --check ${path}`] },
    { cause },
  )
}
