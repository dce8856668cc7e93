"""The extension for the ``threatexchange`` CLI that puts our PDQ in the place of its own.

``threatexchange config extensions add ncii_match.adapters.threatexchange_in_place``

Importing this module changes ``threatexchange``'s ``PdqSignal`` (``replace_pdq`` says why): all that the CLI does with
an extension is to import it, and it takes no second signal type with the name ``pdq``.
"""

from threatexchange.extensions.manifest import ThreatExchangeExtensionManifest

from ncii_match.adapters.threatexchange import replace_pdq

replace_pdq()

TX_MANIFEST = ThreatExchangeExtensionManifest()
"""Nothing new to add: the signal type is there already."""
