"""Files of any models' answers, ranked by consensus: `nex-merge consensus FILE...`. No model or run is involved."""
