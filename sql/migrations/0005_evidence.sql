-- Daily packs: each day's cut and the bytes that were signed.

set local role tms_owner;
