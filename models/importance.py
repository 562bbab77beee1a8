"""What the trees split on, as a small SVG that needs no library to look at."""

from __future__ import annotations

from html import escape

from lodestar.models.latency import LatencyModel

__all__ = ["importance_svg"]

BAR_PX, GAP_PX, LABEL_PX, WIDTH_PX = 16, 6, 190, 640


def importance_svg(model: LatencyModel) -> str:
    """Draw each feature's share of the trees' total gain, largest first."""
    gain = model.booster.feature_importance(importance_type="gain")
    total = float(gain.sum()) or 1.0
    shares = sorted(zip((gain / total).tolist(), model.features, strict=True), key=lambda pair: (-pair[0], pair[1]))
    height = len(shares) * (BAR_PX + GAP_PX) + 2 * GAP_PX + BAR_PX
    bars = "".join(_bar(row, share, name) for row, (share, name) in enumerate(shares, start=1))
    title = f'<text x="{GAP_PX}" y="{BAR_PX}">{escape(model.target)}: share of the trees’ gain</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {height}" font-family="sans-serif" '
        f'font-size="12">{title}{bars}</svg>\n'
    )


def _bar(row: int, share: float, name: str) -> str:
    y, length = row * (BAR_PX + GAP_PX) + GAP_PX, share * (WIDTH_PX - LABEL_PX - 60)
    return (
        f'<text x="{LABEL_PX - GAP_PX}" y="{y + 12}" text-anchor="end">{escape(name)}</text>'
        f'<rect x="{LABEL_PX}" y="{y}" width="{length:.1f}" height="{BAR_PX}" fill="#4269d0"/>'
        f'<text x="{LABEL_PX + length + GAP_PX:.1f}" y="{y + 12}">{share:.1%}</text>'
    )
