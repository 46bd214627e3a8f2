/** The owner went away before it answered. What was asked may or may not have happened: ask the next owner again. */
export class OwnerLost extends Error {
  constructor() {
    super('the owner of the database went away')
    this.name = 'OwnerLost'
  }
}
