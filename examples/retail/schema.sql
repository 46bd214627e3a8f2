-- A shop's books: stock and its movements, customers, sales with their items, invoices, payments. Safe to run again.
--
-- Nothing here links items to sales or makes an invoice's number unique: imports write these tables, in any order. What must
-- be true all the same stands in policies/invariants, and is looked at every five minutes.
--
-- Money is below infinity because Postgres takes NaN for a numeric: the greatest of all numbers, so that `>= 0` lets it through.

create schema if not exists retail;

create table if not exists retail.customers (
  id bigint primary key,
  name text not null,
  credit_limit numeric(12, 2) not null check (credit_limit >= 0 and credit_limit < 'Infinity')
);

create table if not exists retail.stock (
  sku text primary key,
  quantity bigint not null
);

-- Every change of the stock: its sum is the stock.
create table if not exists retail.stock_movements (
  id bigint generated always as identity primary key,
  sku text not null,
  change bigint not null,
  reason text not null,
  at timestamptz not null default now()
);
create index if not exists stock_movements_sku on retail.stock_movements (sku);

create table if not exists retail.sales (
  id bigint primary key,
  customer_id bigint not null,
  status text not null default 'open' check (status in ('open', 'paid', 'void')),
  total numeric(12, 2) not null check (total >= 0 and total < 'Infinity')
);
create index if not exists sales_customer on retail.sales (customer_id);

create table if not exists retail.sale_items (
  id bigint primary key,
  sale_id bigint not null,
  sku text not null,
  quantity bigint not null check (quantity > 0),
  price numeric(12, 2) not null check (price >= 0 and price < 'Infinity'),
  -- The row's own time, not its transaction's: what a long import writes last is not old when it commits.
  arrived_at timestamptz not null default clock_timestamp()
);
-- shops that were made before it
alter table retail.sale_items add column if not exists arrived_at timestamptz not null default clock_timestamp();
create index if not exists sale_items_sale on retail.sale_items (sale_id);

create table if not exists retail.invoices (
  id bigint primary key,
  number text not null,
  sale_id bigint not null
);
create index if not exists invoices_number on retail.invoices (number);

create table if not exists retail.payments (
  id bigint primary key,
  sale_id bigint not null,
  amount numeric(12, 2) not null check (amount >= 0 and amount < 'Infinity')
);
create index if not exists payments_sale on retail.payments (sale_id);

-- The first line against negative stock: refused where it is written, whoever writes it. The invariant is the second: it finds
-- what got past, by a restore or by somebody who switched this off.
--
-- After, because the row is judged that is stored: an upsert's first row is only proposed, and triggers before may change theirs.
create or replace function retail.no_negative_stock() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if new.quantity < 0 then
    raise exception 'stock of % would be %', new.sku, new.quantity using errcode = '23514';
  end if;
  return null;
end
$$;
drop trigger if exists no_negative_stock on retail.stock;
create trigger no_negative_stock after insert or update on retail.stock for each row execute function retail.no_negative_stock();
-- under session_replication_role = replica too
alter table retail.stock enable always trigger no_negative_stock;
