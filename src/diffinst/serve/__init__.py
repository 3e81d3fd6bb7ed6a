"""The page and the HTTP API: `diffinst serve`; needs `pip install 'diffinst[serve]'`."""
