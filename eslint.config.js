import { defineConfig, globalIgnores } from 'eslint/config'
import tseslint from 'typescript-eslint'

/** Folders that may know they run in a process of their own: everything else gets what it needs as arguments. */
const processFolders = ['src/run.ts', 'src/ui/**', 'src/commands/**', 'src/config/**', 'src/drivers/**']

/** Where output is made, where it is redacted, and the entry that reports a failure before there is a command. */
const outputFolders = ['src/run.ts', 'src/ui/**', 'src/redaction/**']

/** A line that goes around the logger goes around redaction. */
const logThroughRedaction = {
  meta: {
    type: 'problem',
    schema: [],
    messages: { around: '{{what}} is not redacted: log through src/redaction/logger.ts.' },
  },
  create(context) {
    const report = (node, what) => context.report({ node, messageId: 'around', data: { what } })
    const nameOf = (node) => (node.computed ? node.property.value : node.property.name)
    const isNamed = (node, names) => node.type === 'Identifier' && names.includes(node.name)
    /** `process`, `globalThis.process` */
    const isGlobal = (node, name) =>
      isNamed(node, [name]) ||
      (node.type === 'MemberExpression' && isNamed(node.object, ['globalThis', 'global']) && nameOf(node) === name)
    const servers = ['request', 'req', 'reply', 'res', 'response', 'app', 'server', 'fastify', 'instance']
    const checkSource = (node) => {
      const source = node.source?.value
      if (/^(pino|pino-[^/]+|winston|bunyan)(\/|$)/.test(source)) report(node, source)
      if (/^(node:)?console$/.test(source)) report(node, 'console')
    }
    return {
      MemberExpression(node) {
        if (isGlobal(node.object, 'console')) report(node, 'console')
        if (isGlobal(node.object, 'process') && /^std(out|err)$/.test(nameOf(node)))
          report(node, `process.${nameOf(node)}`)
        if (isNamed(node.object, servers) && nameOf(node) === 'log') report(node, `${node.object.name}.log`)
      },
      VariableDeclarator(node) {
        if (node.id.type !== 'ObjectPattern' || !node.init) return
        const taken = node.id.properties.map((property) => property.key?.name)
        if (isGlobal(node.init, 'console')) report(node, 'console')
        if (isGlobal(node.init, 'process') && taken.some((name) => /^std(out|err)$/.test(name))) report(node, 'process')
        if (isNamed(node.init, servers) && taken.includes('log')) report(node, `${node.init.name}.log`)
      },
      ImportSpecifier(node) {
        const source = node.parent.source.value
        if (/^(node:)?process$/.test(source) && /^std(out|err)$/.test(node.imported.name)) report(node, 'process')
      },
      ImportDeclaration: checkSource,
      ImportExpression: checkSource,
      ExportNamedDeclaration: checkSource,
      CallExpression(node) {
        if (isNamed(node.callee, ['require'])) checkSource({ ...node, source: node.arguments[0] })
        if (!isNamed(node.callee, ['fastify', 'Fastify'])) return
        const options = node.arguments[0]?.type === 'ObjectExpression' ? node.arguments[0].properties : []
        const logger = options.find(({ key }) => key?.name === 'logger' || key?.name === 'loggerInstance')
        if (logger && logger.value.value !== false) report(logger, "fastify's own logger")
      },
    }
  },
}

export default defineConfig(
  globalIgnores(['dist*/', 'build/', 'coverage/', 'artifacts/', '.tms/']),
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      'no-console': 'error',
      eqeqeq: 'error',
      // A message may hold a number; `${undefined}` and `${object}` stay errors.
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      // `run(): Promise<void>` of an interface may be async without awaiting, and `return view()` is shorter than two lines.
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/no-confusing-void-expression': 'off',
    },
  },
  {
    files: ['src/**/*.ts'],
    ignores: processFolders,
    rules: {
      'no-restricted-globals': [
        'error',
        { name: 'process', message: 'Take it as an argument; only commands, ui, config and drivers know the process.' },
      ],
      'no-restricted-imports': ['error', { paths: ['process', 'node:process'] }],
    },
  },
  {
    files: ['src/**/*.ts'],
    ignores: outputFolders,
    plugins: { tms: { rules: { 'log-through-redaction': logThroughRedaction } } },
    rules: { 'tms/log-through-redaction': 'error' },
  },
  {
    files: ['test/**/*.ts', 'bench/**/*.ts'],
    rules: {
      // Answers of the CLI are JSON.parse'd and compared as a whole.
      '@typescript-eslint/no-unsafe-assignment': 'off',
      '@typescript-eslint/no-unsafe-member-access': 'off',
    },
  },
  {
    files: ['bin/**/*.js', 'scripts/**/*.js', '*.js', '*.cjs'],
    rules: { eqeqeq: 'error', 'no-undef': 'off' },
  },
)
