#!/usr/bin/env python3
"""Pulls that take longer than the registry's tokens are good for."""

import harness
import test_resume
from test_resume import MB


class Expiry(test_resume.BigPackage):
    def tokens_expire(self, *, layers, cut_every):
        """Pulls for longer than 15 s with tokens that are good for 5 s, of a server that says a minute."""
        source, digests = self.big_package(8 * MB, layers)
        tokens = self.token_server(lifetime=5, expires_in=60)
        registry = self.registry(data=source.data, settings=tokens.settings())
        link = self.link(registry.address, rate=MB // 2, cut_every=cut_every)
        mounted = self.mount()
        self.assert_arrives(mounted, link.address, digests)
        refused = [path for _, path, status in registry.requests() if status == 401]
        print(f"{self._testMethodName}: {len(tokens.requests)} tokens, {len(refused)} refusals")
        # A token more for those that were refused, not one for each request.
        self.assertGreaterEqual(len(tokens.requests), 2)
        self.assertLessEqual(len(tokens.requests), len(refused))
        self.assertLessEqual(len(tokens.requests), 10)

    def test_token_that_expires_between_layers(self):
        self.tokens_expire(layers=24, cut_every=None)

    def test_token_that_expires_under_a_layer(self):
        """The rest of a layer is asked for with another token than its begin."""
        self.tokens_expire(layers=1, cut_every=MB)


if __name__ == "__main__":
    harness.main("openssl")
