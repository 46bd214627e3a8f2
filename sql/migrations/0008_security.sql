-- What attackers try, counted; sources that are shut out for a while.

set local role tms_owner;
