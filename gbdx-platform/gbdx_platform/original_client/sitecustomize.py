"""Lets GBDX's own Python clients (gbdx-auth, gbdxtools, gbdx-cloud-harness) reach the service that GBDX_URL names.

They have the address of a platform that is gone written in their code. Python reads this file at its start when this
folder is on PYTHONPATH, as `gbdx-platform client-env` puts it.
"""

import os

GONE = "https://geobigdata.io"
PRESENT = os.environ.get("GBDX_URL", "").rstrip("/")

try:
    import requests
except ImportError:  # an environment without these clients
    requests = None

if requests and PRESENT:
    asked = requests.Session.request

    def request(self, method, url, *arguments, **options):
        """The request, at the service."""
        if url == GONE or url.startswith(f"{GONE}/"):
            url = PRESENT + url[len(GONE) :]
        return asked(self, method, url, *arguments, **options)

    requests.Session.request = request
