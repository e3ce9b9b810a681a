-- The kind of change that an import makes. A step of its own, because a new value
-- of an enum cannot be used in the transaction that adds it.
ALTER TYPE voice_call_change_kind ADD VALUE 'imported';
