-- +goose Up
-- status is text: a rebuild copies these rows from a schema with a type of its own.
CREATE TABLE template_stat_shards (
    day              date    NOT NULL,
    template         text    NOT NULL,
    template_version bigint  NOT NULL,
    status           text    NOT NULL,
    partition        integer NOT NULL,
    count            bigint  NOT NULL,
    PRIMARY KEY (day, template, template_version, status, partition)
) WITH (fillfactor = 60);
COMMENT ON TABLE template_stat_shards IS 'template_stats, one row a user partition that a transaction had to itself. Read `template_stats` instead.';
COMMENT ON COLUMN template_stat_shards.day IS 'UTC day of the deliveries; old ones are deleted by it.';
COMMENT ON COLUMN template_stat_shards.template IS 'As in deliveries; empty where that is null.';
COMMENT ON COLUMN template_stat_shards.template_version IS 'As in deliveries; 0 where that is null.';
COMMENT ON COLUMN template_stat_shards.status IS 'Where the deliveries counted here stand.';
COMMENT ON COLUMN template_stat_shards.partition IS 'One of the user partitions of the transactions that counted here; -1: what was merged of all. Only sums over all rows say something.';
COMMENT ON COLUMN template_stat_shards.count IS 'Number of deliveries.';

-- +goose Down
-- Forward only.
