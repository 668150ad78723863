"""The manual: pages that are written (`pages/`), and pages made from what they describe, as HTML for offline use."""
