"""L5: the configuration: structs with a default for every key, read from YAML and the environment."""
