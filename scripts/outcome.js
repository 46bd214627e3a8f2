// What a report of the test runner says, in words for the end of a log.
import { relative } from 'node:path'
import { stripVTControlCharacters } from 'node:util'

/** `passed`, `failed`, and one text for whatever keeps the run from being good. */
export function outcomeOf({ numPassedTests, numFailedTests, testResults }, root) {
  const failures = []
  for (const { name, message, assertionResults } of testResults) {
    const file = relative(root, name)
    // A file that failed outside its tests has a message of its own.
    if (message) failures.push(`${file}\n${excerpt(message)}`)
    for (const { status, fullName, failureMessages } of assertionResults)
      if (status === 'failed') failures.push(`${file}: ${fullName}\n${excerpt(failureMessages.join('\n'))}`)
    // The runner calls such a file passed: its tests stand there as they were before it ran. Those that are skipped are 'skipped'.
    const open = assertionResults.filter(({ status }) => status === 'pending')
    if (open.length > 0)
      failures.push(
        `${file}: its worker process ended without a word, so ${open.length} of ${assertionResults.length} tests have no outcome. ` +
          'Above, "a worker of the test runner ended" says how.',
      )
  }
  return { passed: numPassedTests, failed: numFailedTests, failures }
}

function excerpt(text) {
  const lines = stripVTControlCharacters(text).split('\n')
  // Where it was, in this project: the runner's own part of a stack tells nobody anything.
  return lines
    .filter((line) => !/^ *at .*(\/node_modules\/|node:)/.test(line))
    .join('\n')
    .slice(0, 1500)
}
