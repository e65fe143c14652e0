-- revision 1
CREATE OR REPLACE VIEW template_stats AS
SELECT day, template, nullif(template_version, 0) AS template_version, status::delivery_status AS status, sum(count)::bigint AS count
FROM template_stat_shards GROUP BY day, template, template_stat_shards.template_version, template_stat_shards.status HAVING sum(count) <> 0;
COMMENT ON VIEW template_stats IS 'Deliveries by the day of their request, by template and by where they stand now. Days that a program without these counts has written to are put right within minutes.';
COMMENT ON COLUMN template_stats.day IS 'UTC day of the request.';
COMMENT ON COLUMN template_stats.template IS 'The request''s template; empty where it brought its own content, or its accepted record was not read yet.';
COMMENT ON COLUMN template_stats.template_version IS 'Which version of the template; null where there is none.';
COMMENT ON COLUMN template_stats.status IS 'Where the deliveries stand now.';
COMMENT ON COLUMN template_stats.count IS 'Number of deliveries.';
