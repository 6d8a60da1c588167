"""A small auditor of Python repositories: an inventory, a check of a change against it, and what earlier audits said.

Nothing of what is audited is imported, run or followed: `facts` reads syntax trees, `tree` and `git` read files and
objects. What decides needs neither: `inventory`, `checks`, `page`.
"""

from __future__ import annotations

from observer_actors.audit.auditor import Audit, Audited, audit, inventory_of, judge
from observer_actors.audit.git import AuditFailed
from observer_actors.audit.page import inventory_page

__all__ = ["Audit", "AuditFailed", "Audited", "audit", "inventory_of", "inventory_page", "judge"]
