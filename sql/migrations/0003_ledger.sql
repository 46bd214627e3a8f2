-- The sealed ledger: order, chain, Merkle tree, checkpoints, and the keys that sign.

set local role tms_owner;
