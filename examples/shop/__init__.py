"""A shop: orders, e-mails about them, and a report that takes a while."""

import duly

app = duly.App(__name__)
