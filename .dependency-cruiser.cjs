/**
 * The layers: commands -> topics -> drivers, and nothing the other way. `npm run layers` fails on a violation;
 * test/layers.test.ts breaks each rule on purpose and expects that.
 */

/** Folders of src that aren't topics. Every other folder is one. */
const notTopics = 'commands|config|drivers|ui'
const topics = `^src/(?!(${notTopics})/)[^/]+/`
/** Packages that are one database's business. */
const databases =
  '^(pg|pg-[^/]+|@electric-sql/.+|@supabase/.+|ws)$|node_modules/(pg|pg-[^/]+|@electric-sql|@supabase|ws)/'
const oclif = 'node_modules/@oclif/|^@oclif/'

module.exports = {
  forbidden: [
    {
      name: 'no-cycles',
      comment: 'Two files that need each other are one file, or lack a third.',
      severity: 'error',
      from: {},
      to: { circular: true, dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'no-orphans',
      comment: 'Nothing imports it and it is no entry.',
      severity: 'error',
      from: {
        orphan: true,
        path: '^src/',
        pathNot: '^src/(commands/|(run|agent|client)\\.ts$|drivers/(conformance|embedded/worker)\\.ts$)',
      },
      to: {},
    },
    {
      name: 'no-unresolvable',
      comment: 'The import leads nowhere.',
      severity: 'error',
      from: {},
      to: { couldNotResolve: true },
    },
    {
      name: 'commands-stay-thin',
      comment: 'Commands parse, ask their topic and show. They know no driver; TmsCommand opens the database.',
      severity: 'error',
      from: { path: '^src/commands/' },
      to: { path: `^src/drivers/|${databases}`, dependencyTypesNot: ['type-only'] },
    },
    {
      name: 'commands-do-not-call-commands',
      comment: 'What two commands share belongs into the topic.',
      severity: 'error',
      from: { path: '^src/commands/' },
      to: { path: '^src/commands/' },
    },
    {
      name: 'topics-know-no-command-line',
      comment:
        'Topics are plain functions: no oclif, no configuration, no rendering. Views use the types of ui/blocks.ts.',
      severity: 'error',
      from: { path: topics },
      to: { path: `^src/(commands|config)/|^src/ui/(?!blocks\\.ts$)|${oclif}` },
    },
    {
      name: 'topics-know-no-driver',
      comment: 'Topics call the contract; which database answers is decided elsewhere.',
      severity: 'error',
      from: { path: topics },
      to: { path: `^src/drivers/(embedded|postgres|supabase|open\\.ts)|${databases}` },
    },
    {
      name: 'drivers-are-the-ground-floor',
      comment: 'Drivers serve those above and know none of them.',
      severity: 'error',
      from: { path: '^src/drivers/' },
      to: { path: `${topics}|^src/(commands|config|ui)/|${oclif}` },
    },
    {
      name: 'drivers-are-apart',
      comment: 'A fourth driver is a folder beside the three, not a change in them.',
      severity: 'error',
      from: { path: '^src/drivers/(embedded|postgres|supabase)/' },
      to: { path: '^src/drivers/(embedded|postgres|supabase)/', pathNot: '^src/drivers/$1/' },
    },
    {
      name: 'one-door-to-drivers',
      comment: 'Only drivers/open.ts knows the drivers; their insides are theirs.',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/drivers/(embedded|postgres|supabase|open\\.ts)' },
      to: { path: '^src/drivers/(embedded|postgres|supabase)/' },
    },
    {
      name: 'open-uses-the-front-door',
      comment: 'drivers/open.ts opens drivers, it does not look into them.',
      severity: 'error',
      from: { path: '^src/drivers/open\\.ts$' },
      to: { path: '^src/drivers/(embedded|postgres|supabase)/(?!driver\\.ts$)' },
    },
    {
      name: 'only-the-ui-opens-databases',
      comment: 'TmsCommand opens and closes the database of a command.',
      severity: 'error',
      // client.ts hands it to programs outside, which close what they open.
      from: { path: '^src/', pathNot: '^src/(ui/command|client)\\.ts$' },
      to: { path: '^src/drivers/open\\.ts$' },
    },
    {
      name: 'oclif-stays-in-front',
      comment: 'oclif is known to the command base, the commands and the entry.',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/(ui/(command|fleet-command)|run)\\.ts$|^src/commands/' },
      to: { path: oclif },
    },
    {
      name: 'config-knows-no-command-line',
      comment: 'Settings can be resolved by anybody: no oclif, no rendering.',
      severity: 'error',
      from: { path: '^src/config/' },
      to: { path: `^src/(commands/|ui/(?!blocks\\.ts$))|${oclif}` },
    },
    {
      name: 'ui-knows-no-command',
      comment: 'The base is shared by all commands.',
      severity: 'error',
      from: { path: '^src/ui/' },
      to: { path: '^src/commands/' },
    },
    {
      name: 'source-knows-no-test',
      comment: 'Tests, benchmarks and scripts are not shipped.',
      severity: 'error',
      from: { path: '^src/' },
      to: { path: '^(test|bench|scripts|bin)/' },
    },
    {
      name: 'no-dev-dependency-in-source',
      comment: 'It would be missing where tms is installed.',
      severity: 'error',
      from: { path: '^src/', pathNot: '^src/drivers/conformance\\.ts$' },
      to: { dependencyTypes: ['npm-dev', 'npm-no-pkg', 'npm-unknown'], dependencyTypesNot: ['type-only'] },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: {
      exportsFields: ['exports'],
      conditionNames: ['import', 'require', 'node', 'default', 'types'],
    },
  },
}
