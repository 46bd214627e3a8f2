// Numbers in, Markdown out.

/** The peers that everybody else is compared with. */
const peers = ['graphile-worker', 'pg-boss']

export function measuresFor({ jobs, perCall, rates }) {
  return [
    { id: 'bulk', title: `enqueue, ${whole(perCall)} a call`, unit: 'jobs/s', better: 'more' },
    { id: 'throughput', title: `work off ${whole(jobs)} waiting jobs`, unit: 'jobs/s', better: 'more' },
    { id: 'throughput-event', title: '… with an event for each', unit: 'jobs/s', better: 'more', own: true },
    { id: 'throughput-apply', title: '… with an `apply` for each', unit: 'jobs/s', better: 'more', own: true },
    ...rates.flatMap((rate) =>
      [50, 95, 99].map((point) => ({
        id: `latency-${rate}-p${point}`,
        title: `start latency at ${whole(rate)}/s, p${point}`,
        unit: 'ms',
        better: 'less',
      })),
    ),
    { id: 'memory', title: 'peak memory of the worker', unit: 'MB', better: 'less' },
  ]
}

/** The smallest value that `point` % of the values don't exceed. */
export function percentile(values, point) {
  if (values.length === 0) throw new Error('no values')
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.ceil((point / 100) * sorted.length) - 1]
}

export function median(values) {
  if (values.length === 0) throw new Error('no values')
  const sorted = [...values].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

export function toMarkdown({ at, machine, options, contenders, measures, samples }) {
  const failures = []
  const of = (contender, measure) =>
    samples.filter((sample) => sample.contender === contender && sample.measure === measure)

  const figures = (name, { id, unit, own }) => {
    const found = of(name, id)
    // `own`: only who has such a thing is measured.
    if (own && found.length === 0) return '–'
    const failed = found.filter((sample) => sample.failed !== undefined)
    if (failed.length > 0 || found.length !== options.rounds) {
      // One round that failed spoils the figure: a median of the rounds that went well would hide it.
      const reason = failed[0]?.failed ?? 'not measured'
      const rounds = failed.map((sample) => sample.round).join(', ')
      const text = `${name}${rounds ? `, round ${rounds}` : ''}: ${reason.replace(/\s+/g, ' ')}`
      const number = failures.includes(text) ? failures.indexOf(text) + 1 : failures.push(text)
      return `failed (${number})`
    }
    const values = found.map((sample) => sample.value)
    const spread = values.length > 1 ? ` (${show(Math.min(...values), unit)}–${show(Math.max(...values), unit)})` : ''
    return `${show(median(values), unit)}${spread}`
  }

  /** Of each round by itself, then the median: in a slow minute both were slow. */
  const ratio = (name, peer, { id, better }) => {
    const own = of(name, id)
    const others = of(peer, id)
    const quotients = own.flatMap((sample) => {
      const other = others.find((each) => each.round === sample.round)
      if (sample.failed !== undefined || !other || other.failed !== undefined) return []
      return [better === 'more' ? sample.value / other.value : other.value / sample.value]
    })
    return quotients.length === options.rounds ? median(quotients).toFixed(2) : '–'
  }

  const pairs = contenders.flatMap(({ name }) =>
    peers
      .filter((peer) => peer !== name && contenders.some((each) => each.name === peer))
      .map((peer) => ({ name, peer })),
  )
  const { postgres } = machine
  const lines = [
    ...(options.quick ? ['**A quick run. It shows that everything works; don’t compare its figures.**', ''] : []),
    ...(machine.load > machine.cores / 4 ? ['**The machine was busy with something else when this began.**', ''] : []),
    `${machine.cores} × ${machine.model}, ${machine.memoryGb} GB, Node ${machine.node}, Postgres ${postgres.server_version}` +
      ` (fsync ${postgres.fsync}, synchronous_commit ${postgres.synchronous_commit}, shared_buffers ${postgres.shared_buffers}),` +
      ` load ${machine.load.toFixed(2)} at the start, ${at}${machine.commit ? `, commit ${machine.commit}` : ''}`,
    '',
    `${options.rounds} ${options.rounds === 1 ? 'round' : 'rounds, medians (lowest–highest)'}. Latency: ${options.seconds} s at each rate, from just` +
      ' before a job is sent to the start of its handler.',
    '',
    ...table(
      ['', 'unit', ...contenders.map(({ name, version }) => `${name} ${version}`)],
      measures.map((measure) => [measure.title, measure.unit, ...contenders.map(({ name }) => figures(name, measure))]),
    ),
    '',
  ]
  if (pairs.length > 0) {
    lines.push(
      'How many times as good, in the same round. Above 1 the first one is better, in every row.',
      '',
      ...table(
        ['', ...pairs.map(({ name, peer }) => `${name} : ${peer}`)],
        measures.map((measure) => [measure.title, ...pairs.map(({ name, peer }) => ratio(name, peer, measure))]),
      ),
      '',
    )
  }
  if (failures.length > 0) lines.push(...failures.map((text, i) => `(${i + 1}) ${text}`), '')
  for (const { name, settings } of contenders) {
    if (!settings) continue
    const code = (value) => `\`${JSON.stringify(value)}\``
    lines.push(`- ${name}: throughput ${code(settings.throughput)}, latency ${code(settings.latency)}`)
  }
  return lines.join('\n')
}

function table(head, rows) {
  const clean = (cell) => cell.replaceAll('|', '\\|')
  const widths = head.map((cell, i) => Math.max(3, cell.length, ...rows.map((row) => clean(row[i]).length)))
  const line = (cells) => `| ${cells.map((cell, i) => clean(cell).padEnd(widths[i])).join(' | ')} |`
  return [line(head), `| ${widths.map((width) => '-'.repeat(width)).join(' | ')} |`, ...rows.map(line)]
}

function show(value, unit) {
  if (unit === 'ms' && value < 100) return value.toFixed(1)
  return whole(value)
}

function whole(value) {
  return Math.round(value).toLocaleString('en-US')
}
