-- The egress policy that the client asked for, as JSON; '' is none.
ALTER TABLE sandbox ADD COLUMN policy TEXT NOT NULL DEFAULT '';
