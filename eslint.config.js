import { defineConfig, globalIgnores } from 'eslint/config'
import tseslint from 'typescript-eslint'

/** Folders that may know they run in a process of their own: everything else gets what it needs as arguments. */
const processFolders = ['src/run.ts', 'src/ui/**', 'src/commands/**', 'src/config/**', 'src/drivers/**']

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
