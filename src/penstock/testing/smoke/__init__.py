"""The worker's smoke test: does a running worker do what its page promises?"""
