"""Field names of every structure that the verifier reads, in order: CONSENSUS.md 2.5, CONTRACT.md 2, WIRE.md 4."""

LAYOUTS = """
Header version chain height previous term view time_s proposer tx_root receipt_root state_root outbox_root inbox_cursor
 rules_version tx_count next_validators
Account id role public nonce free_u escrow_u bond_u arrears_u points credit chain node suspended warned
Rules version credit_start credit_cap credit_reward credit_penalty credit_bar warn_below mode eps_ppm beta_ppm
 sigma_ppm gamma_u_per_ms price_cap_u_per_wh commit_deposit_u gap_ppm risk_u_per_wh rho_max_ppm sigma_max_ppm
 price_floor_ppm price_top_ppm block_points points_per_event excluded_classes break_even_ppm full_weight_wh fresh_s
 price_rule charge_rule budget_ppm headroom_w comfort_steps_ppm reading valley escrow_cap_u improve_s baseline_days
 baseline_high adjust_ppm partner_days daily_gain_max decay_days rehab_per_day rp_days rp_energy_factor
 response_budget_u crossings rematch_s
Spec event kind slot_s slots required_ppm open_s commit_close_s reveal_close_s match_by_s confirm_close_s
 window_start_s meter_close_s settle_by_s alpha_u_per_wh x_ms y_ms budget_u units normal_price_u_per_wh
 compensation_price_u_per_wh profile_wh_per_mwh
Event event state open rules_version spec book_root rho_scaled pairs lambda_u_per_wh mean_price_u_per_wh
 incentives_done punish_done result_root reason
Pair event number offer bid seller buyer slot_wh limit_u_per_wh price_u_per_wh charge_u buyer_escrow_u seller_escrow_u
 buyer_bond_u seller_bond_u state paid_u
Row user side status sold_wh bought_wh quota_wh metered_wh outside_wh agreed_wh delivered_wh short_wh credit_before
 credit_after traded_u charge_u penalty_u arrears_u rp_u_per_wh notice points
Check version suite plug boot_id counter previous root first count time_s quality import_mwh export_mwh firmware
 calibration reason
Home chain free_u escrow_u bond_u arrears_u credit points suspended
Trade number slot_wh price_u_per_wh charge_u paid_u state
Totals deposited_u withdrawn_u users_u offices_u points_issued sent_u received_u
"""
NAMES = {line.split()[0]: line.split()[1:] for line in LAYOUTS.strip().replace("\n ", " ").split("\n")}
